"""How the tests run: Hypothesis gives the same examples every time, and no test is judged by its speed."""

from hypothesis import HealthCheck, settings

settings.register_profile("penstock", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")
