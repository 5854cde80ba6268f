"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long examples take to be made says something about how busy the machine is, not about the code.
settings.register_profile("extauthz", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("extauthz")
