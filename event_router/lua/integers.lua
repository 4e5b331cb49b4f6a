-- 64-bit integers as decimal text. Lua's numbers are doubles: up to 15 digits they are exact, beyond that text is
-- used. No script by itself: see redis_client/script.py.
--
-- canonical(s): whether text is an integer as Redis writes it, of 64 bits.
-- number(s): a number where that is exact, else the text. The others take and return either.
-- text(n), plus(a, b), less(a, b); fits(n): whether 64 bits hold it.
-- A text equals no number, though it adds up like one: `n + 0 == n` tells numbers sooner than `type` does (measured).
local canonical, number, text, plus, fits, less
do
    local match, find, format = string.match, string.find, string.format

    function canonical(s)
        if #s < 16 and find(s, '^[1-9]%d*$') then return true end
        if not find(s, '^-?[1-9]%d*$') then return s == '0' end
        local digits = match(s, '%d+')
        if #digits ~= 19 then return #digits < 19 end
        return digits <= (#s == 20 and '9223372036854775808' or '9223372036854775807')
    end

    function number(s)
        if #s <= 15 then return tonumber(s) end
        return s
    end

    function text(n)
        if n + 0 ~= n then return n end
        return format('%d', n)
    end

    local function magnitude_less(a, b)
        if #a ~= #b then return #a < #b end
        return a < b
    end

    local function add_digits(a, b, sign) -- a + sign * b, for a not below b when sign is -1
        local out, carry, i, j = {}, 0, #a, #b
        while i > 0 or j > 0 or carry > 0 do
            local sum = carry + (i > 0 and a:byte(i) - 48 or 0) + sign * (j > 0 and b:byte(j) - 48 or 0)
            carry = math.floor(sum / 10)
            out[#out + 1] = string.char(48 + sum % 10)
            i, j = i - 1, j - 1
            if i <= 0 and j <= 0 and carry < 0 then break end
        end
        local digits = string.reverse(table.concat(out))
        return match(digits, '^0*(%d+)$')
    end

    function plus(a, b)
        local sum = a + b -- of texts, too; but those equal no number
        if sum - b == a and sum - a == b then
            if sum > -1e15 and sum < 1e15 then return sum end
            return format('%d', sum)
        end
        a, b = text(a), text(b)
        local a_negative, b_negative = a:byte(1) == 45, b:byte(1) == 45
        local x, y = match(a, '%d+'), match(b, '%d+')
        local negative, digits = a_negative, nil
        if a_negative == b_negative then
            digits = add_digits(x, y, 1)
        elseif magnitude_less(x, y) then
            negative, digits = b_negative, add_digits(y, x, -1)
        else
            digits = add_digits(x, y, -1)
        end
        if digits == '0' then return 0 end
        return number(negative and '-' .. digits or digits)
    end

    function fits(n)
        return n + 0 == n or canonical(n)
    end

    function less(a, b)
        if type(a) == 'number' and type(b) == 'number' then return a < b end
        a, b = text(a), text(b)
        local a_negative, b_negative = a:byte(1) == 45, b:byte(1) == 45
        if a_negative ~= b_negative then return a_negative end
        local x, y = match(a, '%d+'), match(b, '%d+')
        if a_negative then x, y = y, x end
        return magnitude_less(x, y)
    end
end
