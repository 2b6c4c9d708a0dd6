"""The calendar of a bar's open, in UTC: what a clock on the wall would say, and the same on circles for learners."""

import math

from operators.market.features.columns import TS_OPEN, Codes, Floats, compiled
from operators.market.features.registry import feature
from operators.market.features.windows import NAN

HOUR, MINUTE, WEEKDAY, DAY_OF_MONTH, MONTH, DAY_SIN, DAY_COS, WEEK_SIN, WEEK_COS = (float(mode) for mode in range(9))


@feature("week_cos", "calendar", "Time of the week on a circle, second coordinate.",
         formula="cos(2 pi seconds since Monday / 604800)", source="cyclical encoding", fixed=(WEEK_COS,),
         windowed=lambda: 0)
@feature("week_sin", "calendar", "Time of the week on a circle, first coordinate.",
         formula="sin(2 pi seconds since Monday / 604800)", source="cyclical encoding", fixed=(WEEK_SIN,),
         windowed=lambda: 0)
@feature("day_cos", "calendar", "Time of day on a circle, second coordinate.",
         formula="cos(2 pi seconds since midnight / 86400)", source="cyclical encoding", fixed=(DAY_COS,),
         windowed=lambda: 0)
@feature("day_sin", "calendar", "Time of day on a circle, first coordinate.",
         formula="sin(2 pi seconds since midnight / 86400)", source="cyclical encoding", fixed=(DAY_SIN,),
         windowed=lambda: 0)
@feature("month", "calendar", "Month, 1 to 12.", formula="civil calendar",
         source="Hinnant, chrono-compatible date algorithms", fixed=(MONTH,), windowed=lambda: 0)
@feature("day_of_month", "calendar", "Day of the month, 1 to 31.", formula="civil calendar",
         source="Hinnant, chrono-compatible date algorithms", fixed=(DAY_OF_MONTH,), windowed=lambda: 0)
@feature("day_of_week", "calendar", "Day of the week, 0 Monday to 6 Sunday.",
         formula="(days since 1970-01-01 + 3) mod 7", source="ISO 8601, less one", fixed=(WEEKDAY,), windowed=lambda: 0)
@feature("minute_of_day", "calendar", "Minutes since midnight, 0 to 1439.",
         formula="floor(seconds since midnight / 60)", source="UTC", fixed=(MINUTE,), windowed=lambda: 0)
@feature("hour", "calendar", "Hour of the day, 0 to 23.", formula="floor(seconds since midnight / 3600)", source="UTC",
         fixed=(HOUR,), windowed=lambda: 0)
@compiled
def wall(code: Codes, b: Floats, p: Floats, state: Floats, out: Floats) -> None:
    mode = p[0]
    turn = 2.0 * math.pi
    last = -1
    value = NAN
    for i in range(code.shape[0]):
        t = int(b[TS_OPEN, i])
        if t == last:  # other symbols' bars of the same time
            out[0, i] = value
            continue
        last = t
        days = t // 86400
        second = t - 86400 * days
        weekday = (days + 3) % 7
        week = (86400 * weekday + second) / 604800.0
        if mode == HOUR:
            value = float(second // 3600)
        elif mode == MINUTE:
            value = float(second // 60)
        elif mode == WEEKDAY:
            value = float(weekday)
        elif mode == DAY_SIN:
            value = math.sin(turn * second / 86400.0)
        elif mode == DAY_COS:
            value = math.cos(turn * second / 86400.0)
        elif mode == WEEK_SIN:
            value = math.sin(turn * week)
        elif mode == WEEK_COS:
            value = math.cos(turn * week)
        else:
            z = days + 719468
            era = z // 146097
            day = z - 146097 * era
            year = (day - day // 1460 + day // 36524 - day // 146096) // 365
            day -= 365 * year + year // 4 - year // 100
            m = (5 * day + 2) // 153
            if mode == DAY_OF_MONTH:
                value = float(day - (153 * m + 2) // 5 + 1)
            else:
                value = float(m + 3 if m < 10 else m - 9)
        out[0, i] = value
