#include "lsp/serve.hpp"

#include <algorithm>
#include <cctype>
#include <condition_variable>
#include <deque>
#include <istream>
#include <mutex>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <utility>

namespace proviso::lsp {
namespace {

constexpr std::size_t kMostBytes = std::size_t{64} << 20;  // of one message

/// The body of the next message; nothing at the end of `in`. One that is too large is read and left out: "".
std::optional<std::string> next_body(std::istream& in) {
  constexpr std::string_view kLength = "content-length:";
  std::size_t length = 0;
  bool known = false;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() && known) {
      if (length > kMostBytes) {
        in.ignore(static_cast<std::streamsize>(length));
        return "";
      }
      std::string body(length, '\0');
      in.read(body.data(), static_cast<std::streamsize>(length));
      if (static_cast<std::size_t>(in.gcount()) < length) return std::nullopt;
      return body;
    }
    std::transform(line.begin(), line.end(), line.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (!line.starts_with(kLength)) continue;  // another header, or what follows a message that was cut off
    std::size_t value = 0, digits = 0;
    for (const char c : line.substr(kLength.size())) {
      if (c == ' ' && digits == 0) continue;
      if (c < '0' || c > '9' || ++digits > 15) {
        digits = 0;
        break;
      }
      value = value * 10 + static_cast<std::size_t>(c - '0');
    }
    known = digits > 0;
    length = value;
  }
  return std::nullopt;
}

void send(std::ostream& out, const Json& message) {
  // A text that is not UTF-8 (a file's name, say) is sent with its bad bytes replaced.
  const std::string body = message.dump(-1, ' ', false, Json::error_handler_t::replace);
  out << "Content-Length: " << body.size() << "\r\n\r\n" << body << std::flush;
}

/// What has arrived and waits its turn.
class Inbox {
 public:
  void put(Json message) {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(message));
    changed_.notify_one();
  }
  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_one();
  }
  bool empty() {
    const std::lock_guard lock(mutex_);
    return waiting_.empty();
  }
  /// The next message, with whether the editor has taken it back; nothing at the end.
  std::optional<std::pair<Json, bool>> take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !waiting_.empty() || ended_; });
    if (waiting_.empty()) return std::nullopt;
    Json message = std::move(waiting_.front());
    waiting_.pop_front();
    const bool asks = message.is_object() && message.contains("id") && message.contains("method");
    const bool taken_back = asks && std::any_of(waiting_.begin(), waiting_.end(), [&](const Json& other) {
                              return other.is_object() && other.value("method", Json()) == "$/cancelRequest" &&
                                     other.value("params", Json()).is_object() &&
                                     other["params"].value("id", Json()) == message["id"];
                            });
    return std::pair(std::move(message), taken_back);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Json> waiting_;
  bool ended_ = false;
};

}  // namespace

int serve(Server& server, std::istream& in, std::ostream& out) {
  in.tie(nullptr);  // the reader must not flush what the server is writing
  Inbox inbox;
  std::jthread reader([&] {
    while (auto body = next_body(in)) {
      Json message = Json::parse(*body, nullptr, false);
      const bool last = message.is_object() && message.value("method", Json()) == "exit";
      inbox.put(std::move(message));
      if (last) break;  // nothing is read after it, so that the program can end
    }
    inbox.end();
  });
  while (!server.finished()) {
    if (inbox.empty()) {
      for (const Json& each : server.settle()) send(out, each);
    }
    const auto next = inbox.take();
    if (!next) break;
    const auto& [message, taken_back] = *next;
    if (message.is_discarded()) {
      send(out, Server::unreadable());
    } else if (taken_back) {
      send(out, Server::cancelled(message["id"]));
    } else {
      for (const Json& each : server.receive(message)) send(out, each);
    }
  }
  return server.exit_code();
}

}  // namespace proviso::lsp
