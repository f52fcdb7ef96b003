#include "runtime/autoencoders/activations.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <span>

#include "dsl/utf8.hpp"
#include "editing/corpus.hpp"
#include "editing/second_moments.hpp"
#include "editing/site_capture.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/model/pass_groups.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

TextRows read_text_rows(const std::vector<std::string>& paths, const model::Tokenizer& tokenizer,
                        std::int64_t row_length) {
  TextRows texts;
  std::string all;
  for (const auto& path : paths) {
    const auto corpus = editing::read_corpus(path);
    for (const auto& document : corpus.documents) {
      if (const auto at = dsl::invalid_utf8(document)) {
        throw model::InputError(path + ": byte " + std::to_string(*at + 1) +
                                " is no UTF-8\n  help: convert the text, as by iconv -f latin1 -t utf-8");
      }
      all += document;
    }
    for (auto& row : editing::corpus_rows(corpus, tokenizer, row_length)) {
      texts.tokens += std::ssize(row.tokens);
      texts.rows.push_back(std::move(row));
    }
  }
  texts.sha256 = model::sha256_hex(std::as_bytes(std::span(all)));
  return texts;
}

SitePart site_part(const model::ModelCard& card, const dsl::Site& site) {
  const auto width = card.site_width(site);
  return {std::max<std::int64_t>(site.head, 0) * width, width};
}

void each_pass(const std::vector<model::Row>& rows, const std::function<void(std::size_t, std::size_t)>& pass) {
  const auto length = [&](std::size_t row) { return std::ssize(rows[row].tokens); };
  for (const auto& [begin, end] : model::pass_groups(rows.size(), length)) pass(begin, end - begin);
}

std::vector<model::Row> some_rows(const std::vector<model::Row>& rows, std::size_t first, std::size_t count) {
  const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(first);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

void each_activation(const model::Transformer& transformer, const dsl::Site& read, const dsl::Site& written,
                     const std::vector<model::Row>& rows, const std::function<void(const SeenActivations&)>& see) {
  const at::NoGradGuard no_grad;
  const dsl::Site norm_site = model::sink_site(written, transformer.config());
  const dsl::Site last = std::max({dsl::whole(read), dsl::whole(written), norm_site});
  each_pass(rows, [&](std::size_t first, std::size_t count) {
    const auto part = some_rows(rows, first, count);
    editing::SiteCapture capture({dsl::whole(read), dsl::whole(written), norm_site});
    model::Pass pass;
    pass.rows = &part;
    pass.visitor = &capture;
    pass.stop_after = last;
    const auto layout = transformer.forward(pass);
    const auto packed = editing::ordinary_positions(capture.at(norm_site), layout).nonzero().squeeze(1);
    const auto values = [&](const dsl::Site& site) {
      const auto [begin, width] = site_part(transformer.card(), site);
      return capture.at(dsl::whole(site)).narrow(1, begin, width).index_select(0, packed).to(at::kFloat);
    };
    const auto input = values(read);
    see({input, read == written ? input : values(written), packed, layout, first});
  });
}

}  // namespace proviso::runtime
