-- Gives back what was taken and not used; a window that is not known any more will be read from the ledger.
-- KEYS: as in take.lua. ARGV: per window the amount.
for i, key in ipairs(KEYS) do
  local d = tonumber(redis.call('HGET', key, 'd') or '-1')
  if d >= 0 then
    redis.call('HSET', key, 'd', string.format('%.0f', math.max(0, d - tonumber(ARGV[i]))))
  end
end
return 'ok'
