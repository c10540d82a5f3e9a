"""What the arms offer is found by entry points."""

import pytest

from act_minimal.support.errors import UserError
from act_minimal.support.plugins import plugin
from hardware.command import checklist, setup
from hardware.so100.kinematics import ARMS


def test_the_arms_are_found_by_name():
    assert plugin("arm_commands") is setup.COMMANDS
    assert plugin("check_recordings") is checklist.check_recordings
    assert plugin("so_arms") is ARMS


def test_what_nobody_offers_is_one_sentence():
    with pytest.raises(UserError, match=r"0 installed packages offer 'legs'.*uv sync"):
        plugin("legs")
