-- wrk's requests for `routes-1` and `routes-10k`: the hosts in turn, the same number of times.
-- Arguments: the first host, which the others end in, and the number of hosts.
local requests, count, at = {}, 0, 0

function init(args)
  count = tonumber(args[2])
  for n = 0, count - 1 do
    local host = n == 0 and args[1] or 'h' .. n .. '.' .. args[1]
    requests[n] = wrk.format('GET', nil, { Host = host })
  end
end

-- A prime stride, so that hosts which lie side by side in memory are not asked one after the other.
function request()
  at = (at + 7919) % count
  return requests[at]
end
