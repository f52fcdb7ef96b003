// Trees to YAML text and back. yaml-cpp is known to this file alone.

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>
#include <ostream>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "audit/report_tree.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::audit {
namespace {

// ---- writing -----------------------------------------------------------------------------------------

/// Lists whose items stand on lines of their own, and maps whose keys do; everything else is in flow style.
constexpr std::array<std::string_view, 14> kLists = {"parts",    "annotated", "checks",  "expectations",  "edits",
                                                     "examples", "evidence",  "changes", "rule_activity", "features",
                                                     "circuits", "curve",     "edges",   "nodes"};
constexpr std::array<std::string_view, 6> kListsOfBlocks = {"parts", "checks",   "expectations",
                                                            "edits", "circuits", "examples"};
constexpr std::string_view kBlock = "certificate";

template <std::size_t N>
bool among(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Whether YAML 1.1 and 1.2 readers alike take the bare word for a string.
bool plain(const std::string& text) {
  constexpr std::array<std::string_view, 9> kOther = {"true", "false", "yes",  "no",      "on",
                                                      "off",  "nan",   "null", "infinity"};
  if (text.empty() || text.back() == ' ' || text.back() == ':') return false;
  const bool version =
      std::isdigit(static_cast<unsigned char>(text[0])) && std::count(text.begin(), text.end(), '.') > 1;
  if (!std::isalpha(static_cast<unsigned char>(text[0])) && !version) return false;
  std::string lower = text;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto allowed = [](unsigned char c) {
    return c < 0x80 &&
           (std::isalnum(c) || std::string_view(" _./:-").find(static_cast<char>(c)) != std::string_view::npos);
  };
  return !among(kOther, lower) && text.find(": ") == std::string::npos &&
         std::all_of(text.begin(), text.end(), [&](char c) { return allowed(static_cast<unsigned char>(c)); });
}

/// JSON's quoting is YAML's, but for characters that YAML wants escaped and JSON does not.
std::string quoted(const std::string& text) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kEscapes = {{{"\x7f", "\\x7f"},
                                                                                      {"\u2028", "\\u2028"},
                                                                                      {"\u2029", "\\u2029"},
                                                                                      {"\ufeff", "\\ufeff"},
                                                                                      {"\ufffe", "\\ufffe"},
                                                                                      {"\uffff", "\\uffff"}}};
  std::string result;
  const std::string json = Tree(text).dump(-1, ' ', false, Tree::error_handler_t::replace);
  for (std::string_view rest = json; !rest.empty();) {
    const auto escape = std::find_if(kEscapes.begin(), kEscapes.end(),
                                     [&](const auto& candidate) { return rest.starts_with(candidate.first); });
    const bool control = rest.size() > 1 && rest[0] == '\xc2' && static_cast<unsigned char>(rest[1]) < 0xa0;
    if (escape != kEscapes.end()) {
      result += escape->second;
      rest.remove_prefix(escape->first.size());
    } else if (control) {  // U+0080 to U+009F
      constexpr char kHex[] = "0123456789abcdef";
      const auto byte = static_cast<unsigned char>(rest[1]);
      result += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
      rest.remove_prefix(2);
    } else {
      result += rest[0];
      rest.remove_prefix(1);
    }
  }
  return result;
}

/// The shortest text that reads back as the same double, with the point that YAML 1.1 needs to see a number in it:
/// 1.0e-05.
std::string number(double value) {
  std::array<char, 32> buffer;
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  std::string text(buffer.data(), end);
  if (text.find('.') == std::string::npos) text.insert(std::min(text.find('e'), text.size()), ".0");
  return text;
}

std::string scalar(const Tree& tree) {
  if (tree.is_string()) {
    const auto& text = tree.get_ref<const std::string&>();
    return plain(text) ? text : quoted(text);
  }
  return tree.is_number_float() ? number(tree.get<double>()) : tree.dump();
}

/// yaml-cpp would quote by rules of its own (it leaves "1e5" and "true" bare): it lays out, we spell.
struct Spelt {
  std::string text;
};
std::ostream& operator<<(std::ostream& out, const Spelt& spelt) { return out << spelt.text; }

void emit(YAML::Emitter& out, const Tree& tree, std::string_view key, bool block) {
  if (tree.is_object()) {
    out << (block ? YAML::Block : YAML::Flow) << YAML::BeginMap;
    for (const auto& item : tree.items()) {
      const bool lists = among(kLists, item.key()) && item.value().is_array() && !item.value().empty();
      out << YAML::Key;
      out.WriteIntegralType(Spelt{scalar(item.key())});
      out << YAML::Value;
      emit(out, item.value(), item.key(), block && (lists || item.key() == kBlock));
    }
    out << YAML::EndMap;
  } else if (tree.is_array()) {
    out << (block ? YAML::Block : YAML::Flow) << YAML::BeginSeq;
    for (const Tree& item : tree) emit(out, item, "", block && among(kListsOfBlocks, key));
    out << YAML::EndSeq;
  } else {
    out.WriteIntegralType(Spelt{scalar(tree)});
  }
}

// ---- reading -----------------------------------------------------------------------------------------

constexpr std::size_t kDeepest = 32;

Tree plain_scalar(const std::string& text) {
  if (text == "null" || text == "~" || text.empty()) return nullptr;
  if (text == "true" || text == "false") return text == "true";
  const char* begin = text.data();
  const char* const end = begin + text.size();
  const auto whole = [&](auto value) -> std::optional<Tree> {
    const auto [stop, error] = std::from_chars(begin, end, value);
    return error == std::errc() && stop == end ? std::optional<Tree>(value) : std::nullopt;
  };
  // std::from_chars would also take "inf" and "nan", which are words here.
  if (!std::isdigit(static_cast<unsigned char>(text[text[0] == '-' && text.size() > 1 ? 1 : 0]))) return text;
  if (auto value = whole(std::uint64_t())) return *value;
  if (auto value = whole(std::int64_t())) return *value;
  if (auto value = whole(double())) return *value;
  return text;
}

/// Builds the tree as the parser goes, so that nothing is ever expanded.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& path) : path_(path) {}
  Tree take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { leaf(mark, "?", anchor, nullptr); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { fail(mark, "aliases have no place in a report"); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    leaf(mark, tag, anchor, tag == "?" ? plain_scalar(value) : Tree(value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Tree::array());
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Tree::object());
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  struct Level {
    Tree* tree;
    std::optional<std::string> key;  ///< read, its value still to come
  };

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what) const {
    throw model::InputError(path_ + ":" + std::to_string(mark.line + 1) + ":" + std::to_string(mark.column + 1) + ": " +
                            what + "\n  help: give a report that `proviso audit` wrote, unchanged");
  }

  void leaf(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Tree value) {
    const bool is_key = !open_.empty() && open_.back().tree->is_object() && !open_.back().key;
    if (!is_key) return void(place(mark, tag, anchor, std::move(value)));
    if (!value.is_string()) fail(mark, "keys must be strings");
    if (open_.back().tree->contains(value.get_ref<const std::string&>()))
      fail(mark, "the key " + value.get<std::string>() + " stands here twice");
    open_.back().key = value.get<std::string>();
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Tree empty) {
    if (open_.size() >= kDeepest) fail(mark, "nested more deeply than any report");
    Tree* placed = place(mark, tag, anchor, std::move(empty));
    open_.push_back({placed, std::nullopt});
  }

  Tree* place(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Tree value) {
    if (anchor != YAML::NullAnchor) fail(mark, "anchors have no place in a report");
    if (tag != "?" && tag != "!" && !tag.empty()) fail(mark, "tags have no place in a report");
    if (open_.empty()) return &(root_ = std::move(value));
    Level& level = open_.back();
    if (level.tree->is_array()) return &level.tree->emplace_back(std::move(value));
    if (!level.key) fail(mark, "keys must be strings");
    Tree& item = (*level.tree)[*level.key] = std::move(value);
    level.key.reset();
    return &item;
  }

  const std::string& path_;
  Tree root_;
  std::vector<Level> open_;
};

}  // namespace

std::string yaml_text(const Tree& tree) {
  YAML::Emitter out;
  out.SetSeqFormat(YAML::Block);
  emit(out, tree, "", true);
  return std::string(out.c_str(), out.size()) + "\n";
}

Tree parse_yaml_tree(const std::string& text, const std::string& path) {
  TreeBuilder builder(path);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder))
      throw model::InputError(path + ": the file is empty\n  help: give a report that `proviso audit` wrote");
    TreeBuilder second(path);
    if (parser.HandleNextDocument(second))
      throw model::InputError(path + ": holds more than one document\n  help: give one report a file");
  } catch (const YAML::Exception& error) {
    throw model::InputError(path + ":" + std::to_string(error.mark.line + 1) + ":" +
                            std::to_string(error.mark.column + 1) + ": " + error.msg +
                            "\n  help: give a report that `proviso audit` wrote, unchanged");
  }
  return builder.take();
}

}  // namespace proviso::audit
