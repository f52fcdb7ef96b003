#pragma once

#include <string_view>

namespace proviso::cli {

/// Logs go to standard error: remarks unless `quiet`, details where `verbose`. (spdlog stays behind this
/// header: its fmt and LibTorch's cannot meet in one file.)
void set_log_level(bool quiet, bool verbose);
void log_detail(std::string_view text);
void log_remark(std::string_view text);

}  // namespace proviso::cli
