"""What asks a run to stop, without training."""

import signal

import pytest

from cnnlab.training.interrupt import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request_and_the_second_interrupts(number):
    inherited = signal.signal(number, signal.SIG_DFL)  # nohup has the tests ignore some
    try:
        with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
            signal.raise_signal(number)
            assert stop.requested
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, inherited)


def test_a_run_under_nohup_goes_on_when_the_terminal_goes_away():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
