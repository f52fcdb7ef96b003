#pragma once

#include <string_view>

namespace proviso::audit {

/// The style sheet of a report's HTML: report.css, as built into the program.
std::string_view report_style();

}  // namespace proviso::audit
