#include "cli/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace proviso::cli {

namespace {

spdlog::logger& logger() {
  static const auto instance = [] {
    auto made = std::make_shared<spdlog::logger>("proviso", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("[%T.%e] %v");
    return made;
  }();
  return *instance;
}

}  // namespace

void set_log_level(bool quiet, bool verbose) {
  logger().set_level(verbose ? spdlog::level::debug : quiet ? spdlog::level::off : spdlog::level::info);
}

void log_detail(std::string_view text) { logger().debug("{}", text); }
void log_remark(std::string_view text) { logger().info("{}", text); }

}  // namespace proviso::cli
