"""Colours, dashes, markers and fonts of all figures."""

# Okabe and Ito's colours, which colour-blind readers can tell apart, and their dark variants.
COLOURS = {
    "#0072B2": "#4AA3DF",
    "#D55E00": "#EE7A26",
    "#009E73": "#1FB98C",
    "#E69F00": "#E6A817",
    "#CC79A7": "#D98BB7",
    "#56B4E9": "#8FD0F5",
    "#000000": "#FFFFFF",
}
BACKGROUND = "#FFFFFF"
DASHES = [
    [1, 0],
    [6, 2],
    [6, 2, 1.5, 2],
    [1.5, 1.5],
    [6, 1.5, 1.5, 1.5, 1.5, 1.5],
    [3, 1.5],
    [10, 2.5],
]
# SVG paths: circle, square, diamond, two triangles, plus, cross.
MARKERS = [
    "M-.25,0A.25,.25,0,1,1,.25,0A.25,.25,0,1,1,-.25,0Z",
    "M-.22,-.22H.22V.22H-.22Z",
    "M0,-.32L.32,0L0,.32L-.32,0Z",
    "M0,-.3L.28,.22H-.28Z",
    "M0,.3L.28,-.22H-.28Z",
    "M-.1,-.3H.1V-.1H.3V.1H.1V.3H-.1V.1H-.3V-.1H-.1Z",
    "M-.3,-.16L-.16,-.3L0,-.14L.16,-.3L.3,-.16L.14,0L.3,.16L.16,.3L0,.14L-.16,.3L-.3,.16L-.14,0Z",
]
MARKER_SIZE = 550
CROSS = "M-.4,-.4L.4,.4M.4,-.4L-.4,.4"
CONFIG = {
    "font": "Liberation Sans, Helvetica, Arial, sans-serif",
    "title": {"fontSize": 13, "fontWeight": "normal", "subtitleFontSize": 11},
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridColor": "#E3E3E3",
        "labelFlush": False,
        "labelExpr": "datum.value ? datum.label : '0'",
    },
    "legend": {
        "title": None,
        "orient": "bottom",
        "offset": 6,
        "symbolSize": MARKER_SIZE,
        "symbolOpacity": 1,
        "symbolStrokeWidth": 1.6,
        "labelFontSize": 11,
        "labelLimit": 370,
    },
}
