#pragma once

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lsp/server.hpp"
#include "tests/support/temporary_folder.hpp"

namespace proviso::lsp::test {

/// An editor that speaks to a server in this process. `|` in a text marks the cursor.
class Editor {
 public:
  explicit Editor(ServerOptions options = {}) : server(std::move(options)) {
    const Json answer = request(
        "initialize",
        {{"processId", nullptr}, {"rootUri", uri_of_path(folder.path().string())}, {"capabilities", Json::object()}});
    capabilities = answer.at("result").at("capabilities");
    notify("initialized", Json::object());
  }

  std::string path(const std::string& name) const { return (folder.path() / name).string(); }
  std::string uri(const std::string& name) const { return uri_of_path(path(name)); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(folder.path() / name) << text; }

  /// The whole answer to a request.
  Json request(const std::string& method, Json params) {
    const Json id = ++last_id_;
    Json answer;
    for (Json& each :
         server.receive({{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", std::move(params)}})) {
      if (each.contains("id")) answer = std::move(each);
    }
    REQUIRE(answer.value("id", Json()) == id);
    return answer;
  }
  void notify(const std::string& method, Json params) {
    for (const Json& each : server.receive({{"jsonrpc", "2.0"}, {"method", method}, {"params", std::move(params)}})) {
      notices.push_back(each);
    }
    for (const Json& each : server.settle()) {
      if (each.at("method") == "textDocument/publishDiagnostics") {
        diagnostics[each.at("params").at("uri").get<std::string>()] = each.at("params").at("diagnostics");
      } else {
        notices.push_back(each);
      }
    }
  }

  void open(const std::string& name, std::string text) {
    cursor_ = text.find('|');
    if (cursor_ != std::string::npos) text.erase(cursor_, 1);
    texts_.insert_or_assign(name, Text(text));
    opened_ = name;
    notify("textDocument/didOpen",
           {{"textDocument", {{"uri", uri(name)}, {"languageId", "proviso"}, {"version", 1}, {"text", text}}}});
  }

  /// Of a request at the cursor of the document opened last.
  Json at_cursor(const std::string& method, Json more = Json::object()) {
    more["textDocument"] = {{"uri", uri(opened_)}};
    more["position"] = texts_.at(opened_).position(cursor_);
    return request(method, std::move(more));
  }
  Json of_document(const std::string& method, Json more = Json::object()) {
    more["textDocument"] = {{"uri", uri(opened_)}};
    return request(method, std::move(more));
  }

  /// The text of a document after edits of the protocol.
  std::string edited(const std::string& name, const Json& edits) const {
    std::string text = texts_.at(name).str();
    std::vector<std::pair<std::size_t, Json>> ordered;
    for (const Json& edit : edits) ordered.emplace_back(texts_.at(name).offset(edit.at("range").at("start")), edit);
    std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    for (const auto& [begin, edit] : ordered) {
      const std::size_t end = texts_.at(name).offset(edit.at("range").at("end"));
      text.replace(begin, end - begin, edit.at("newText").get<std::string>());
    }
    return text;
  }

  Json& diagnostics_of(const std::string& name) { return diagnostics[uri(name)]; }
  std::vector<std::string> codes(const std::string& name) {
    std::vector<std::string> found;
    for (const Json& each : diagnostics_of(name)) found.push_back(each.at("code"));
    return found;
  }

  proviso::test::TemporaryFolder folder;
  Server server;
  Json capabilities;
  std::map<std::string, Json> diagnostics;  // last published, by URI
  std::vector<Json> notices;                // other messages of the server

 private:
  int last_id_ = 0;
  std::size_t cursor_ = 0;
  std::string opened_;
  std::map<std::string, Text> texts_;
};

inline std::vector<std::string> labels(const Json& answer) {
  std::vector<std::string> all;
  for (const Json& item : answer.at("result")) all.push_back(item.at("label"));
  return all;
}

inline bool offers(const Json& answer, const std::string& label) {
  const auto all = labels(answer);
  return std::find(all.begin(), all.end(), label) != all.end();
}

}  // namespace proviso::lsp::test
