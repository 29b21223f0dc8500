#include "exchange_log.h"

#include <boost/json.hpp>
#include <fmt/chrono.h>
#include <fmt/format.h>

#include "wire/json_text.h"

namespace fovea::server {

std::string ExchangeRecord::line(const HttpRequest& request, const std::string& route,
                                 int status) const {
  const auto ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin);
  const auto whole_seconds = std::chrono::floor<std::chrono::seconds>(received);
  const auto fraction =
      std::chrono::duration_cast<std::chrono::milliseconds>(received - whole_seconds).count();
  const std::string time =
      fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                  fmt::gmtime(std::chrono::system_clock::to_time_t(received)), fraction);
  return wire::print(
      boost::json::object{
          {"time", time},
          {"request_id", request.id},
          {"method", request.method.substr(0, 16)},
          {"route", route},
          {"status", status},
          {"bytes", num_bytes},
          {"total_ms", static_cast<double>(static_cast<std::int64_t>(ms.count() * 1000)) / 1000}},
      wire::Charset::kAscii);
}

}  // namespace fovea::server
