"""Optimizers, schedules and averages against PyTorch and against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rethinking import sharding
from rethinking.training import optim

STEPS = 5
GRADS = np.random.default_rng(0).normal(scale=3, size=(STEPS, 4, 3)).astype(np.float32)
START = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


def constant(learning_rate):
    return lambda step: learning_rate


def descend(optimizer, gradient, start, steps):
    """The parameters before and after each of `steps` steps with gradient(step, parameters)."""
    update = jax.jit(optimizer.update)
    params = {"kernel": jnp.asarray(start)}
    opt_state, path = optimizer.init(params), [np.asarray(start)]
    for step in range(steps):
        grads = {"kernel": jnp.asarray(gradient(step, path[-1]), jnp.float32)}
        updates, opt_state = update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params["kernel"]))
    return np.stack(path)


def test_rmsprop_is_tensorflows():
    """The formula of tf.compat.v1.train.RMSPropOptimizer, with a schedule and an l2 penalty."""
    rate = optim.schedule(0.045, 0.94, 1, epochs_per_decay=2.0)
    path = descend(
        optim.rmsprop(rate, weight_decay=0.1), lambda step, params: GRADS[step], START, STEPS
    )
    params, square, momentum = START.astype(np.float64), np.ones_like(START), np.zeros_like(START)
    for step in range(STEPS):
        gradient = GRADS[step] + 0.1 * params
        square = 0.9 * square + 0.1 * gradient**2
        momentum = 0.9 * momentum + 0.045 * 0.94 ** (step // 2) * gradient / np.sqrt(square + 1)
        params = params - momentum
        np.testing.assert_allclose(path[step + 1], params, rtol=1e-5, atol=1e-6)


def test_schedule_is_a_staircase_with_warmup():
    step = np.arange(60)
    staircase = 0.045 * 0.94 ** (step // 14)
    steady = optim.schedule(0.045, 0.94, 7, epochs_per_decay=2.0)
    np.testing.assert_allclose([steady(t) for t in step], staircase, rtol=1e-6)
    warmed = jax.jit(optim.schedule(0.045, 0.94, 7, epochs_per_decay=2.0, warmup_epochs=3.0))
    expected = staircase * np.minimum(1, (step + 1) / 21)
    np.testing.assert_allclose([warmed(t) for t in step], expected, rtol=1e-6)


@pytest.mark.parametrize("warmup", [0, 3])
def test_cosine_is_half_a_period_that_ends_at_zero(warmup):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra `oracle`")
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.2)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 20 - warmup)
    theirs = [0.2 * (step + 1) / warmup for step in range(warmup)]
    for _ in range(21 - warmup):
        theirs.append(sgd.param_groups[0]["lr"])
        sgd.step()
        annealing.step()
    ours = jax.jit(optim.cosine(0.2, 20, warmup))
    np.testing.assert_allclose([ours(step) for step in range(21)], theirs, rtol=1e-5, atol=1e-8)
    assert float(ours(20)) == float(ours(25)) == 0.0
    with pytest.raises(ValueError, match="20 steps of warmup"):
        optim.cosine(0.2, 20, 20)


def test_learning_rate_scales_with_the_batch():
    assert optim.scaled(0.045, 32) == 0.045
    np.testing.assert_allclose(optim.scaled(0.045, 256), 0.36)
    np.testing.assert_allclose(optim.scaled(0.1, 512, reference_batch_size=128), 0.4)


def test_sgd_equals_pytorch_with_momentum_decay_and_schedule():
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra `oracle`")
    random = np.random.default_rng(1)
    start, target = random.standard_normal((2, 5, 3))
    optimizer = optim.sgd(optim.schedule(0.1, 0.95, 2), 0.9, 0.01)
    params = {"kernel": jnp.asarray(start, jnp.float32)}
    opt_state = optimizer.init(params)
    theirs = torch.nn.Parameter(torch.tensor(start))
    sgd = torch.optim.SGD([theirs], 0.1, momentum=0.9, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.StepLR(sgd, 2, 0.95)
    for _ in range(7):
        grads = jax.tree.map(lambda p: p - jnp.asarray(target, jnp.float32), params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
        sgd.zero_grad()
        (0.5 * (theirs - torch.tensor(target)) ** 2).sum().backward()
        sgd.step()
        decay.step()
    np.testing.assert_allclose(params["kernel"], theirs.detach().numpy(), rtol=1e-5)


def test_adamw_equals_pytorch_with_decoupled_decay_and_a_cosine_after_a_warmup():
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra `oracle`")
    optimizer = optim.adamw(optim.cosine(0.1, STEPS, 2), weight_decay=0.3)
    params = {"kernel": jnp.asarray(START), "bias": jnp.asarray(START[0])}
    opt_state = optimizer.init(params)
    kernel, bias = (torch.nn.Parameter(torch.tensor(np.array(p))) for p in (START, START[0]))
    groups = [{"params": [kernel], "weight_decay": 0.3}, {"params": [bias], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, 0.1)
    rates = [0.05, 0.1, 0.1, 0.075, 0.025]  # warmup; then 0.05 (1 + cos(pi t / 3)), t = 0, 1, 2
    for grads, rate in zip(GRADS, rates, strict=True):
        updates, opt_state = optimizer.update(
            {"kernel": jnp.asarray(grads), "bias": jnp.asarray(grads[0])}, opt_state, params
        )
        params = optax.apply_updates(params, updates)
        kernel.grad, bias.grad = torch.tensor(grads), torch.tensor(grads[0])
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.step()
    np.testing.assert_allclose(params["kernel"], kernel.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(params["bias"], bias.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_late_gradients_come_after_zeros_and_adamws_decay_is_not_late():
    def late_gradient(step, params):
        return GRADS[step - 2] if step >= 2 else np.zeros_like(START)

    late = descend(
        optim.adamw(constant(0.1), 0.3, workers=3), lambda step, params: GRADS[step], START, STEPS
    )
    expected = descend(optim.adamw(constant(0.1), 0.3), late_gradient, START, STEPS)
    np.testing.assert_allclose(late, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(late[1], 0.97 * START, rtol=1e-6)


def test_weight_decay_acts_on_weights_whatever_they_are_called():
    params = {"w": jnp.ones((4, 3)), "table": [jnp.ones((2, 3, 4))], "b": jnp.ones(3), "t": 1.0}
    params = jax.tree.map(jnp.asarray, params)
    decayed = optim.decayed(params)
    assert decayed == {"w": True, "table": [True], "b": False, "t": False}
    optimizer = optim.sgd(constant(0.1), 0.0, weight_decay=0.5)
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    np.testing.assert_allclose(updates["w"], -0.05)
    np.testing.assert_allclose(updates["table"][0], -0.05)
    assert not updates["b"].any()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_delay_equals_workers_that_take_turns(workers):
    """The workers are simulated: each fetches parameters right after its gradient is applied.

    The loss is half the squared distance to a target, which is another one in each step.
    """
    targets = np.random.default_rng(2).normal(size=(30, 4, 3)).astype(np.float32)
    path = descend(
        optim.sgd(constant(0.05), 0.5, 0.01, workers),
        lambda step, params: params - targets[step],
        START,
        len(targets),
    )

    params, momentum = START.astype(np.float64), np.zeros_like(START)
    at_work = [None] * workers
    for step, target in enumerate(targets):
        # This worker fetches the parameters and starts on a batch.
        at_work[step % workers] = (params, target)
        # This one started the longest ago. It fetches in the next step.
        due = (step + 1) % workers
        if at_work[due] is not None:
            fetched, batch = at_work[due]
            momentum = 0.5 * momentum + (fetched - batch) + 0.01 * fetched
            params = params - 0.05 * momentum
        np.testing.assert_allclose(path[step + 1], params, rtol=1e-4, atol=1e-5)
    assert (path[workers - 1] == START).all()
    assert (path[workers] != START).any()


def test_delay_applies_the_gradient_of_earlier():
    delay = optim.delayed_gradients(3)
    state, late = delay.init({"kernel": START}), []
    for grads in GRADS:
        updates, state = delay.update({"kernel": jnp.asarray(grads)}, state)
        late.append(updates["kernel"])
    np.testing.assert_array_equal(late, [np.zeros_like(START)] * 2 + list(GRADS[:3]))


def test_delay_within_a_loop_on_many_devices():
    """An epoch that is one program carries the state through a scan, equal on all devices."""
    optimizer = optim.rmsprop(constant(0.1), weight_decay=0.01, workers=3)
    devices = sharding.DataParallel(sharding.device_mesh(2))

    def step(carry, grads):
        params, opt_state = carry
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    def epoch(params, grads):
        return jax.lax.scan(step, (params, optimizer.init(params)), grads)[0][0]

    params = devices.compile(epoch)(
        *sharding.replicate(({"kernel": START}, {"kernel": GRADS}), devices.mesh)
    )
    expected = descend(optimizer, lambda step, params: GRADS[step], START, STEPS)[-1]
    np.testing.assert_allclose(params["kernel"], expected, rtol=1e-5, atol=1e-6)


def test_one_worker_leaves_the_optimizer_as_it_was():
    """Older checkpoints were saved before there were workers, and must load."""
    params = {"kernel": START}
    states = [optim.sgd(constant(0.1), 0.9, decay, workers=1).init(params) for decay in (0.0, 0.1)]
    before = optax.chain(optax.identity(), optax.sgd(constant(0.1), 0.9)).init(params)
    assert jax.tree.structure(states[0]) == jax.tree.structure(before)
    assert len(jax.tree.leaves(states[1])) == len(jax.tree.leaves(before))
    with pytest.raises(ValueError, match="workers=0"):
        optim.delayed_gradients(0)


@pytest.mark.parametrize("decay", [0.5, 0.0, 0.9999])
def test_moving_average_has_tensorflows_weights(decay):
    """A value's weight is what its own update replaces, times what the later updates keep."""
    averaging = optim.moving_average(decay)
    state = averaging.init({"kernel": START})
    for values in GRADS:
        average, state = jax.jit(averaging.update)({"kernel": jnp.asarray(values)}, state)
    kept = np.minimum(decay, [(1 + t) / (10 + t) for t in range(1, STEPS + 1)])
    weights = [(1 - kept[t]) * np.prod(kept[t + 1 :]) for t in range(STEPS)]
    expected = np.prod(kept) * START + np.tensordot(weights, GRADS, 1)
    np.testing.assert_allclose(average["kernel"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.average["kernel"], average["kernel"])


def test_moving_average_forgets_exponentially_in_the_end():
    averaging = optim.moving_average(0.9)
    update = jax.jit(averaging.update)
    state = averaging.init(jnp.zeros(()))
    for _ in range(100):
        state = update(jnp.zeros(()), state)[1]
    for step in range(1, 20):
        average, state = update(jnp.ones(()), state)
        np.testing.assert_allclose(average, 1 - 0.9**step, rtol=1e-5)


def test_a_decay_after_more_steps_than_can_be_counted_never_comes():
    rate = optim.schedule(0.1, 0.5, 5, epochs_per_decay=1e9)
    assert float(rate(jnp.int32(2**30))) == pytest.approx(0.1)


def test_an_average_of_bfloat16_is_float32_and_a_counter_has_none():
    averager = optim.moving_average(0.999)
    values = {"w": jnp.ones(2, jnp.bfloat16), "steps": jnp.int32(0)}
    state = averager.init(values)._replace(step=jnp.int32(100_000))
    values = {"w": 2 * values["w"], "steps": jnp.int32(7)}
    average, state = averager.update(values, state)
    assert average["w"].dtype == jnp.float32
    np.testing.assert_allclose(average["w"], 1.001, rtol=1e-6)  # in bfloat16 it would stay 1
    assert (average["steps"], average["steps"].dtype) == (7, jnp.int32)


@pytest.mark.parametrize("warmup_steps", [0, 2])
def test_a_cosine_of_more_steps_than_can_be_counted(warmup_steps):
    schedule = optim.cosine(0.5, 2**40, warmup_steps)
    assert float(jax.jit(schedule)(jnp.int32(2))) == 0.5
