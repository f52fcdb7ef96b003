#include "dsl/paths.hpp"

#include <algorithm>
#include <filesystem>
#include <system_error>

namespace proviso::dsl {
namespace {

namespace fs = std::filesystem;

fs::path resolved(const fs::path& path, std::error_code& error) {
  const fs::path full = fs::absolute(path, error);
  return error ? full : fs::weakly_canonical(full, error);
}

bool lies_under(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

}  // namespace

std::string folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  return folder.empty() ? "." : folder.string();
}

std::string file_identity(const std::string& path) {
  std::error_code error;
  const fs::path full = resolved(path, error);
  return error ? fs::path(path).lexically_normal().string() : full.string();
}

std::variant<std::string, Diagnostic> open_path(const std::string& folder, const ast::String& path,
                                                const std::vector<std::string>& allowed) {
  std::error_code error;
  const fs::path opened = (fs::path(folder) / path.value).lexically_normal();
  const fs::path target = resolved(fs::path(folder) / path.value, error);
  if (error) {
    return make_diagnostic(Code::unreadable_file, path.span,
                           "`" + path.value + "` cannot be opened: " + error.message());
  }
  std::vector<std::string> roots{folder};
  roots.insert(roots.end(), allowed.begin(), allowed.end());
  for (const std::string& root : roots) {
    std::error_code unreadable;
    fs::path open_folder = resolved(root, unreadable);
    if (!open_folder.has_filename()) open_folder = open_folder.parent_path();  // "data/" is "data"
    if (!unreadable && lies_under(target, open_folder)) return opened.string();
  }
  return make_diagnostic(Code::path_outside, path.span, "`" + path.value + "` lies outside the rule file's folder",
                         {"move the file beside the rule file, or pass --allow-path " + target.parent_path().string()});
}

}  // namespace proviso::dsl
