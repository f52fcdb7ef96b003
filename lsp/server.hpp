#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "lsp/answers.hpp"
#include "lsp/workspace.hpp"

namespace proviso::lsp {

struct ServerOptions {
  dsl::LoadOptions load;
  std::string version;  ///< of the program, told to editors
  std::string model;    ///< what rules are checked against; "" for none, and an editor may name one
  /// Reads a model's names and shapes; throws what says why it cannot.
  std::function<std::shared_ptr<const ModelView>(const std::string& path)> open_model;
};

/// A language server (LSP 3.17) as a function of messages: none of it waits, and no message makes it fail.
class Server {
 public:
  explicit Server(ServerOptions options);

  /// What one message of the editor is answered with, in order.
  std::vector<Json> receive(const Json& message);
  /// The answer to a message that is no JSON.
  static Json unreadable();
  /// The answer to a request that the editor has taken back.
  static Json cancelled(const Json& id);
  /// The diagnostics that are due. Asked for when no message waits, so that of many changes the last one counts.
  std::vector<Json> settle();

  bool finished() const { return finished_; }
  /// As the protocol wants it: 0 where `shutdown` came before the end, else 1.
  int exit_code() const { return shut_down_ ? 0 : 1; }

 private:
  using Handler = Json (Server::*)(const Json& params);
  static const std::map<std::string, Handler>& requests();

  Json answer(const Json& id, const std::string& method, const Json& params);
  void notice(const std::string& method, const Json& params);
  void open_model(const std::string& path);

  Json initialize(const Json& params);
  Json shutdown(const Json& params);
  Json on_hover(const Json& params);
  Json on_completion(const Json& params);
  Json on_definition(const Json& params);
  Json on_references(const Json& params);
  Json on_prepare_rename(const Json& params);
  Json on_rename(const Json& params);
  Json on_formatting(const Json& params);
  Json on_code_action(const Json& params);
  Json on_document_symbol(const Json& params);
  Json on_semantic_tokens(const Json& params);

  /// An open document, what is known of it, and a byte in it.
  struct Place {
    const OpenDocument* document;
    std::shared_ptr<const Analysis> analysis;
    std::size_t offset;
  };
  Place place(const Json& params, bool with_position = true);

  ServerOptions options_;
  Workspace workspace_;
  std::shared_ptr<const ModelView> model_;
  std::vector<Json> messages_;  // to send beside an answer
  bool initialized_ = false;
  bool shut_down_ = false;
  bool finished_ = false;
  bool due_ = false;               // some text has changed since the diagnostics were told
  std::set<std::string> to_bind_;  // documents to check against the model: opened or saved since
  std::map<std::string, std::vector<dsl::Diagnostic>> of_model_;  // by URI, until the document changes
  std::map<std::string, Json> told_;                              // the diagnostics last sent, by URI
};

}  // namespace proviso::lsp
