"""A calibration as JSON and back."""

from typing import Any

from metricjax.gallery._calibration import Calibration
from metricjax.gallery._probability import LogOdds


def calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """Dicts, lists and numbers alone."""
    return {**calibration._asdict(), "log_odds": calibration.log_odds._asdict()}


def calibration_from_json(content: dict[str, Any]) -> Calibration:
    """What `calibration_to_json` made, also once written and read."""
    low, high = content["far_interval"]
    curve = {key: tuple(values) for key, values in content["log_odds"].items()}
    return Calibration(
        **{
            **content,
            "far_interval": (low, high),
            "log_odds": LogOdds(**curve),
            "fars": tuple(content["fars"]),
            "thresholds": tuple(content["thresholds"]),
        }
    )
