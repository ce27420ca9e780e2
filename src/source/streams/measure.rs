//! How many entries are read together, measured by the server: it sends an answer whole, so its size has to be known before.

/// A part of a script: of the entries behind `after`, as many as `entries_max` and `bytes_max` permit, at least one. Their number
/// is in `entries`, their bytes in `bytes`, the id of the last in `last`; `more` is 1 where there are others behind them. Few are looked at
/// at a time: the server holds these.
macro_rules! measure {
    () => {
        "local entries, bytes, last, more = 0, 0, false, 0 \
        while more == 0 do \
        local found = redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', '16') \
        if #found == 0 then break end \
        for _, entry in ipairs(found) do \
        local size = 0 for _, part in ipairs(entry[2]) do size = size + #part end \
        if entries == entries_max or (entries > 0 and bytes + size > bytes_max) then more = 1 break end \
        entries, bytes, last = entries + 1, bytes + size, entry[1] end \
        after = '(' .. last end "
    };
}

pub(super) use measure;
