-- Versions, as core/versions.py compares them. No script by itself: see redis_client/script.py.
--
-- newer_version(a, b): whether a beats b. Numbers joined by ':' or '-', then '@' and text, which is compared
--   byte by byte: Lua compares text by locale, and numbers as doubles.
local newer_version
do
    local match = string.match

    local function bytes_greater(a, b)
        for i = 1, math.min(#a, #b) do
            local x, y = a:byte(i), b:byte(i)
            if x ~= y then return x > y end
        end
        return #a > #b
    end

    function newer_version(a, b)
        -- What decides mostly, and is compared alike in any locale: first numbers of one length.
        local first, other = match(a, '^(%d+):'), match(b, '^(%d+):')
        if first ~= other and first and other and #first == #other then return first > other end
        while true do
            local x, mark, a_rest = match(a, '^(%d+)([:@-])(.*)$')
            local y, _, b_rest = match(b, '^(%d+)([:@-])(.*)$')
            if not x or not y then return bytes_greater(a, b) end
            if x ~= y then
                if #x ~= #y then return #x > #y end
                return bytes_greater(x, y)
            end
            a, b = a_rest, b_rest
            if mark == '@' then return bytes_greater(a, b) end
        end
    end
end
