#pragma once

#include <iosfwd>

#include "lsp/server.hpp"

namespace proviso::lsp {

/// Speaks the protocol over two streams, each message behind a `Content-Length` header, until `exit` or the end of
/// `in`. Requests that the editor takes back before their turn are not carried out. Returns the server's exit code.
int serve(Server& server, std::istream& in, std::ostream& out);

}  // namespace proviso::lsp
