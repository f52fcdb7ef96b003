#pragma once

#include "runtime/model/transformer.hpp"

namespace proviso::model {

/// A visitor that may also stand before the maps that read the stream: the reader of every pass that has no other. A
/// cache that such a pass fills has as many key-value heads as there are query heads, so only another continues it.
class ReadingVisitor : public SiteVisitor {
 public:
  virtual StreamReader* reader() = 0;  ///< null: nothing stands there; asked once a pass
};

}  // namespace proviso::model
