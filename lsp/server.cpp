#include "lsp/server.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "dsl/paths.hpp"

namespace proviso::lsp {
namespace {

// JSON-RPC's and the protocol's
constexpr int kParseError = -32700, kInvalidRequest = -32600, kMethodNotFound = -32601, kInvalidParams = -32602,
              kInternalError = -32603, kNotInitialized = -32002, kRequestCancelled = -32800, kRequestFailed = -32803;

/// A request that is understood and cannot be carried out, with why.
struct Refused {
  int code;
  std::string message;
};

Json failure(const Json& id, int code, const std::string& message) {
  return {{"jsonrpc", "2.0"}, {"id", id}, {"error", {{"code", code}, {"message", message}}}};
}

Json notification(const std::string& method, Json params) {
  return {{"jsonrpc", "2.0"}, {"method", method}, {"params", std::move(params)}};
}

bool is_id(const Json& id) { return id.is_string() || id.is_number_integer() || id.is_null(); }

}  // namespace

Server::Server(ServerOptions options) : options_(std::move(options)) { workspace_.load = options_.load; }

const std::map<std::string, Server::Handler>& Server::requests() {
  static const std::map<std::string, Handler> kRequests = {
      {"initialize", &Server::initialize},
      {"shutdown", &Server::shutdown},
      {"textDocument/hover", &Server::on_hover},
      {"textDocument/completion", &Server::on_completion},
      {"textDocument/definition", &Server::on_definition},
      {"textDocument/references", &Server::on_references},
      {"textDocument/prepareRename", &Server::on_prepare_rename},
      {"textDocument/rename", &Server::on_rename},
      {"textDocument/formatting", &Server::on_formatting},
      {"textDocument/codeAction", &Server::on_code_action},
      {"textDocument/documentSymbol", &Server::on_document_symbol},
      {"textDocument/semanticTokens/full", &Server::on_semantic_tokens},
  };
  return kRequests;
}

Json Server::unreadable() { return failure(nullptr, kParseError, "the message is no JSON"); }
Json Server::cancelled(const Json& id) { return failure(id, kRequestCancelled, "the request was cancelled"); }

std::vector<Json> Server::receive(const Json& message) {
  std::vector<Json> out;
  const bool sound = message.is_object() && (!message.contains("id") || is_id(message["id"]));
  if (!sound)
    return {failure(nullptr, kInvalidRequest, "a message is an object with `method`, and `id` where it asks")};
  const Json id = message.value("id", Json());
  if (!message.contains("method")) {
    // An answer to what the server asked, of which it asks nothing.
    if (message.contains("result") || message.contains("error")) return {};
    return {failure(id, kInvalidRequest, "a message has a `method`")};
  }
  if (!message["method"].is_string()) return {failure(id, kInvalidRequest, "`method` is a text")};
  const std::string method = message["method"].get<std::string>();
  const Json params = message.value("params", Json::object());

  if (message.contains("id")) {
    out.push_back(answer(id, method, params));
  } else {
    try {
      notice(method, params);
    } catch (const std::exception& error) {
      messages_.push_back(notification("window/logMessage", {{"type", 1}, {"message", method + ": " + error.what()}}));
    }
  }
  out.insert(out.end(), messages_.begin(), messages_.end());
  messages_.clear();
  return out;
}

Json Server::answer(const Json& id, const std::string& method, const Json& params) {
  const auto handler = requests().find(method);
  if (shut_down_) return failure(id, kInvalidRequest, "the server is shut down");
  if (!initialized_ && method != "initialize") return failure(id, kNotInitialized, "`initialize` comes first");
  if (initialized_ && method == "initialize") return failure(id, kInvalidRequest, "`initialize` comes once");
  if (handler == requests().end()) return failure(id, kMethodNotFound, "there is no method `" + method + "` here");
  try {
    return {{"jsonrpc", "2.0"}, {"id", id}, {"result", (this->*handler->second)(params)}};
  } catch (const Refused& refused) {
    return failure(id, refused.code, refused.message);
  } catch (const Json::exception& error) {
    return failure(id, kInvalidParams, error.what());
  } catch (const std::exception& error) {
    return failure(id, kInternalError, error.what());
  }
}

void Server::notice(const std::string& method, const Json& params) {
  if (method == "exit") {
    finished_ = true;
    return;
  }
  if (!initialized_ || shut_down_) return;
  if (method == "textDocument/didOpen") {
    const Json& document = params.at("textDocument");
    const std::string uri = document.at("uri").get<std::string>();
    workspace_.open(uri, document.value("version", std::int64_t{0}), document.at("text").get<std::string>());
    of_model_.erase(uri);
    to_bind_.insert(uri);
    due_ = true;
  } else if (method == "textDocument/didChange") {
    const Json& document = params.at("textDocument");
    const std::string uri = document.at("uri").get<std::string>();
    of_model_.erase(uri);
    due_ = true;
    workspace_.change(uri, document.value("version", std::int64_t{0}), params.at("contentChanges"));
  } else if (method == "textDocument/didClose") {
    const std::string uri = params.at("textDocument").at("uri").get<std::string>();
    workspace_.close(uri);
    of_model_.erase(uri);
    to_bind_.erase(uri);
    due_ = true;
  } else if (method == "textDocument/didSave") {
    to_bind_.insert(params.at("textDocument").at("uri").get<std::string>());
    workspace_.forget();
    due_ = true;
  } else if (method == "workspace/didChangeWatchedFiles") {
    workspace_.forget();
    due_ = true;
  }
}

std::vector<Json> Server::settle() {
  if (!due_) return {};
  due_ = false;
  // Of files that are used and not open, the diagnostics of all who use them; of open ones, their own.
  std::map<std::string, Json> found;
  std::map<std::string, std::string> open;  // identity -> URI
  for (const std::string& uri : workspace_.uris()) {
    open[dsl::file_identity(path_of_uri(uri))] = uri;
    found[uri] = Json::array();
  }
  for (const std::string& uri : workspace_.uris()) {
    const auto analysis = workspace_.analysis(path_of_uri(uri));
    if (!analysis) continue;
    if (to_bind_.contains(uri) && model_) {
      try {
        of_model_[uri] = model_->check(analysis->parts);
      } catch (const std::exception& error) {
        of_model_.erase(uri);
        messages_.push_back(notification("window/logMessage", {{"type", 1}, {"message", error.what()}}));
      }
    }
    std::map<dsl::SourceId, Text> texts;
    const auto tell = [&](const dsl::Diagnostic& diagnostic) {
      const dsl::Source& source = analysis->sources.at(diagnostic.span.source);
      const auto opened = open.find(dsl::file_identity(source.path));
      const bool own = diagnostic.span.source == analysis->root;
      if (!own && opened != open.end()) return;  // it tells of itself
      const Text& text = texts.try_emplace(diagnostic.span.source, source.text).first->second;
      Json shown = diagnostic_json(diagnostic, analysis->sources, text);
      Json& list = found.try_emplace(own ? uri : uri_of_path(source.path), Json::array()).first->second;
      if (std::find(list.begin(), list.end(), shown) == list.end()) list.push_back(std::move(shown));
    };
    for (const dsl::Diagnostic& each : analysis->diagnostics) tell(each);
    for (const dsl::Diagnostic& each : of_model_[uri]) tell(each);
  }
  to_bind_.clear();

  std::vector<Json> out = std::exchange(messages_, {});
  for (const auto& [uri, list] : told_) found.try_emplace(uri, Json::array());  // what is mended or closed
  for (const auto& [uri, list] : found) {
    const OpenDocument* document = workspace_.find(uri);
    const auto before = told_.find(uri);
    if (document == nullptr && list.empty() && (before == told_.end() || before->second.empty())) continue;
    Json params = {{"uri", uri}, {"diagnostics", list}};
    if (document != nullptr) params["version"] = document->version;
    out.push_back(notification("textDocument/publishDiagnostics", std::move(params)));
    told_[uri] = list;
  }
  std::erase_if(told_,
                [&](const auto& entry) { return entry.second.empty() && workspace_.find(entry.first) == nullptr; });
  return out;
}

// ---- the life of a server --------------------------------------------------------------------

void Server::open_model(const std::string& path) {
  try {
    model_ = options_.open_model(path);
  } catch (const std::exception& error) {
    messages_.push_back(notification("window/showMessage", {{"type", 2}, {"message", path + ": " + error.what()}}));
  }
}

Json Server::initialize(const Json& params) {
  if (params.contains("workspaceFolders") && params["workspaceFolders"].is_array()) {
    for (const Json& folder : params["workspaceFolders"]) {
      workspace_.folders.push_back(path_of_uri(folder.at("uri").get<std::string>()));
    }
  } else if (params.contains("rootUri") && params["rootUri"].is_string()) {
    workspace_.folders.push_back(path_of_uri(params["rootUri"].get<std::string>()));
  }
  const Json wanted = params.value("initializationOptions", Json::object());
  std::string model = options_.model;
  if (wanted.is_object()) {
    const std::string named = wanted.value("model", "");
    if (!named.empty()) model = named;
    for (const Json& path : wanted.value("allowedPaths", Json::array())) {
      workspace_.load.allowed_paths.push_back(path.get<std::string>());
    }
  }
  if (!model.empty() && options_.open_model) open_model(model);
  initialized_ = true;
  return {{"serverInfo", {{"name", "proviso"}, {"version", options_.version}}},
          {"capabilities",
           {{"positionEncoding", "utf-16"},
            {"textDocumentSync", {{"openClose", true}, {"change", 2}, {"save", true}}},
            {"hoverProvider", true},
            {"completionProvider", {{"triggerCharacters", {".", "\"", "/", "(", " "}}}},
            {"definitionProvider", true},
            {"referencesProvider", true},
            {"renameProvider", {{"prepareProvider", true}}},
            {"documentFormattingProvider", true},
            {"codeActionProvider", {{"codeActionKinds", {"quickfix", "source.fixAll"}}}},
            {"documentSymbolProvider", true},
            {"semanticTokensProvider", {{"legend", semantic_legend()}, {"full", true}}}}}};
}

Json Server::shutdown(const Json&) {
  shut_down_ = true;
  return nullptr;
}

// ---- documents -------------------------------------------------------------------------------

Server::Place Server::place(const Json& params, bool with_position) {
  const std::string uri = params.at("textDocument").at("uri").get<std::string>();
  const OpenDocument* document = workspace_.find(uri);
  if (document == nullptr) throw Refused{kInvalidParams, uri + " is not open"};
  const std::size_t offset = with_position ? document->text.offset(params.at("position")) : 0;
  return {document, workspace_.analysis(path_of_uri(uri)), offset};
}

Json Server::on_hover(const Json& params) {
  const Place at = place(params);
  return hover(*at.analysis, at.document->text, at.offset, model_.get());
}

Json Server::on_completion(const Json& params) {
  const Place at = place(params);
  return completion(*at.analysis, at.document->text, at.offset, workspace_.load.library_path, model_.get());
}

Json Server::on_definition(const Json& params) {
  const Place at = place(params);
  return definition(*at.analysis, at.offset, workspace_.load.allowed_paths);
}

Json Server::on_references(const Json& params) {
  const Place at = place(params);
  const bool with_declaration = params.value("context", Json::object()).value("includeDeclaration", true);
  return references(workspace_, *at.analysis, at.offset, with_declaration);
}

Json Server::on_prepare_rename(const Json& params) {
  const Place at = place(params);
  return prepare_rename(*at.analysis, at.document->text, at.offset);
}

Json Server::on_rename(const Json& params) {
  const Place at = place(params);
  Renamed renamed = rename(workspace_, *at.analysis, at.offset, params.at("newName").get<std::string>());
  if (!renamed.refused.empty()) throw Refused{kRequestFailed, renamed.refused};
  return std::move(renamed.edit);
}

Json Server::on_formatting(const Json& params) {
  const Place at = place(params, false);
  return formatting(*at.analysis, at.document->text);
}

Json Server::on_code_action(const Json& params) {
  const Place at = place(params, false);
  const std::size_t begin = at.document->text.offset(params.at("range").at("start"));
  const std::size_t end = at.document->text.offset(params.at("range").at("end"));
  static const std::vector<dsl::Diagnostic> kNone;
  const auto of_model = of_model_.find(at.document->uri);
  return code_actions(*at.analysis, of_model == of_model_.end() ? kNone : of_model->second, at.document->text,
                      at.document->uri, begin, end);
}

Json Server::on_document_symbol(const Json& params) {
  const Place at = place(params, false);
  return document_symbols(*at.analysis, at.document->text);
}

Json Server::on_semantic_tokens(const Json& params) {
  const Place at = place(params, false);
  return semantic_tokens(*at.analysis, at.document->text);
}

}  // namespace proviso::lsp
