-- Times as text, as core/timestamps.py writes them. No script by itself: see redis_client/script.py.
--
-- time_text(ms): YYYY-MM-DDTHH:MM:SS.mmmZ of epoch milliseconds.
local function time_text(ms)
    local floor = math.floor
    local day, rest = floor(ms / 86400000), ms % 86400000
    -- Days to a date in the proleptic Gregorian calendar, in eras of 400 years that begin on 1 March.
    local shifted = day + 719468
    local era = floor(shifted / 146097)
    local of_era = shifted - era * 146097
    local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
    local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
    local month = floor((5 * of_year + 2) / 153)
    local day_of_month = of_year - floor((153 * month + 2) / 5) + 1
    month = month < 10 and month + 3 or month - 9
    if month <= 2 then year = year + 1 end
    return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year + era * 400, month, day_of_month,
        floor(rest / 3600000), floor(rest / 60000) % 60, floor(rest / 1000) % 60, rest % 1000)
end
