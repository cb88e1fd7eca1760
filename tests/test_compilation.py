"""Programs of an audit are compiled fast, and once."""

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.referee.compilation import FAST_OPTIONS, fast_compile, known_options


def test_an_option_that_xla_does_not_know_is_dropped_and_the_others_stay():
    known = {"xla_backend_optimization_level": 0}
    unknown = {"xla_cpu_there_is_no_such_option": 1, "xla_backend_optimization_level_": 0}
    assert known_options(tuple((known | unknown).items())) == known
    run = fast_compile(lambda x: x + 1, known | unknown)
    assert run(jnp.ones(())) == 2


def test_a_fast_compiled_function_compiles_once_a_shape_and_asks_for_its_options_once():
    """Also where a release has dropped an option, which once made every call compile."""
    run, events = fast_compile(lambda x: x - 1, FAST_OPTIONS | {"xla_cpu_there_is_no_such_option": 2}), []

    def listen(event, _seconds, **_):
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        assert run(np.float32(1)) == 0
        assert events, "the first call compiles"
        events.clear()
        assert run(np.float32(2)) == 1
        assert not events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
