-- wrk posts BODY with AUTHORIZATION as fast as replies come, and prints: requests, microseconds, failures, and how many
-- microseconds the slowest hundredth of the requests took at least.
wrk.method = "POST"
wrk.body = os.getenv("BODY")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = os.getenv("AUTHORIZATION")

function done(summary, latency)
  local errors = summary.errors
  local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("%d %d %d %d\n", summary.requests, summary.duration, failures, latency:percentile(99)))
end
