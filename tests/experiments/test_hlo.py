"""Kernels and bytes in the text of a compiled GPU program, counted by hand."""

from rethinking.experiments import hlo

# A loop over steps that takes 128 of 1,000 rows, multiplies them, and stores a number.
TEXT = """HloModule jit_f, is_scheduled=true

%fused_gather (p.0: f32[1000,10], p.1: s32[128,1]) -> f32[128,10] {
  %p.0 = f32[1000,10]{1,0} parameter(0)
  %p.1 = s32[128,1]{1,0} parameter(1)
  %bitcast.1 = f32[1000,10]{1,0} bitcast(%p.0)
  ROOT %gather.1 = f32[128,10]{1,0} gather(%bitcast.1, %p.1), slice_sizes={1,10}
}

%fused_store (p.2: f32[390], p.3: s32[], p.4: f32[]) -> (f32[390], bf16[4]) {
  %p.2 = f32[390]{0} parameter(0)
  %p.3 = s32[] parameter(1)
  %p.4 = f32[] parameter(2)
  %b.1 = f32[1]{0} bitcast(%p.4)
  %u.1 = f32[390]{0} dynamic-update-slice(%p.2, %b.1, %p.3)
  %c.1 = bf16[4]{0} broadcast(%p.4), dimensions={}
  ROOT %t.1 = (f32[390]{0}, bf16[4]{0}) tuple(%u.1, %c.1)
}

%body (arg: (s32[], f32[1000,10], s32[128,1], f32[390])) -> (s32[], f32[390]) {
  %arg = (s32[], f32[1000,10]{1,0}, s32[128,1]{1,0}, f32[390]{0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = f32[1000,10]{1,0} get-tuple-element(%arg), index=1
  %rows = s32[128,1]{1,0} get-tuple-element(%arg), index=2
  %losses = f32[390]{0} get-tuple-element(%arg), index=3
  %taken = f32[128,10]{1,0} fusion(%x, %rows), kind=kLoop, calls=%fused_gather
  %conv = (f32[128,10]{1,0}, u8[0]{0}) custom-call(%taken), custom_call_target="__cudnn$convForward"
  %copied = f32[]{:T(128)} copy(%i)
  %stored = (f32[390]{0}, bf16[4]{0}) fusion(%losses, %i, %copied), kind=kLoop, calls=%fused_store
  ROOT %out = (s32[], f32[390]{0}) tuple(%i, %losses)
}

%small_body (arg.2: (s32[])) -> (s32[]) {
  %arg.2 = (s32[]) parameter(0)
  ROOT %n.1 = (s32[]) copy(%arg.2)
}

ENTRY %main (a: f32[1000,10]) -> f32[390] {
  %a = f32[1000,10]{1,0} parameter(0)
  %sorted = f32[1000,10]{1,0} copy(%a)
  %w.2 = (s32[]) while(%sorted), condition=%always, body=%small_body
  %w.1 = (s32[], f32[390]{0}) while(%sorted), condition=%always, body=%body
  ROOT %r = f32[390]{0} get-tuple-element(%w.1), index=1
}
"""
# The rows that are taken and their numbers; a convolution; a copy of a number; a stored number.
STEP = (128 * 10 * 4 + 128 * 4 + 128 * 10 * 4) + 2 * (128 * 10 * 4) + 2 * 4 + (4 + 4 + 4 + 4 * 2)


def test_a_step_of_a_loop_has_its_kernels_and_the_bytes_that_they_use():
    step = hlo.Program(TEXT).launches_of_largest_loop()
    assert (step.kernels, step.convolutions) == (4, 1)
    assert step.bytes == STEP


def test_a_program_has_the_kernels_of_its_loops_once():
    whole = hlo.Program(TEXT).launches()
    assert (whole.kernels, whole.convolutions) == (4 + 1 + 1, 1)
    assert whole.bytes == STEP + 2 * 40_000 + 2 * 4


def test_sizes_of_types():
    assert hlo.size("f32[3,4]{1,0}") == 48
    assert hlo.size("(bf16[10]{0}, f32[], u8[7]{0:T(8)}, token[])") == 20 + 4 + 7
