"""What the experts of a trained model encode: hidden maps, responses, tuning and exciting inputs. See docs/probe.md."""

from smoe_ray.training.probe.probe import Probed, probe_model

__all__ = ["Probed", "probe_model"]
