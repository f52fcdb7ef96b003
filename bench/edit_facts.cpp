// Our side of bench/edit_facts.py: writes facts into a model by one method after another and scores what comes of it.
//   proviso_bench_edits MODEL WORK.json > RESULTS.jsonl
// WORK.json is what edit_facts.py writes; a line of the results is one measurement.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bench/edited_model.hpp"
#include "bench/kept_values.hpp"
#include "editing/batch_edit.hpp"
#include "editing/corpus.hpp"
#include "editing/fine_tune.hpp"
#include "editing/float_tensors.hpp"
#include "editing/rome.hpp"
#include "editing/target_score.hpp"
#include "runtime/model/allocation.hpp"

namespace {

using namespace proviso;
using nlohmann::json;

struct Continued {
  std::string prompt, answer;
};

struct BenchFact {
  editing::EditedFact edited;
  std::string from;
  std::vector<std::string> paraphrases;
  std::vector<Continued> neighbours;
};

std::vector<BenchFact> read_facts(const json& work) {
  std::vector<BenchFact> facts;
  for (const auto& record : work.at("facts")) {
    BenchFact fact{{record.at("subject"), record.at("template"), record.at("to")}, record.at("from"), {}, {}};
    fact.paraphrases = record.at("paraphrases");
    for (const auto& each : record.at("neighbours")) fact.neighbours.push_back({each.at(0), each.at(1)});
    facts.push_back(std::move(fact));
  }
  return facts;
}

class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(last_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

class Bench {
 public:
  Bench(const std::string& path, const json& work)
      : work_(work), facts_(read_facts(work)), tokenizer_(model::Tokenizer::load(path)) {
    const auto card = model::read_model_card(path);
    model_.emplace(card, at::Device(work.at("device").get<std::string>()), work.at("dtype") == "bfloat16");
    text_ = editing::corpus_rows(editing::read_corpus(work.at("text")), *tokenizer_, 128);
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < text_.size(); ++i) {
      tokens += std::ssize(text_[i].tokens);
      if (tokens >= work.at("text_tokens").get<std::int64_t>()) text_.resize(i + 1);
    }
    leave_out_refused();
  }

  void run() {
    for (const auto& item : work_.at("items")) {
      const std::string method = item.at("method"), mode = item.at("mode");
      if (mode == "baseline") {
        baseline();
      } else if (mode == "export") {
        share(method);
      } else if (mode == "single") {
        single(method, item);
      } else if (mode == "batch") {
        for (const std::int64_t count : item.at("counts")) batch(method, std::min(count, count_of_facts()));
      } else {
        sequence(method, item);
      }
    }
  }

 private:
  std::int64_t count_of_facts() const { return std::ssize(facts_); }
  model::Transformer& exact() const { return model_->exact(); }

  /// Facts that no method can write (a subject at the attention sink) are left out before anything is counted.
  void leave_out_refused() {
    std::vector<BenchFact> kept;
    for (auto& fact : facts_) {
      const auto made = editing::fact_prompts(*tokenizer_, fact.edited, {}, exact().config().context);
      if (std::holds_alternative<editing::FactPrompts>(made)) kept.push_back(std::move(fact));
    }
    print({{"mode", "facts"}, {"given", facts_.size()}, {"kept", kept.size()}});
    facts_ = std::move(kept);
  }

  static void print(const json& line) { std::cout << line.dump() << std::endl; }

  // ---- methods -----------------------------------------------------------------------------------

  const editing::SecondMoment& moment(std::int64_t layer) {
    auto& held = moments_[layer];
    if (!held)
      held = editing::second_moments(exact(), *tokenizer_, {layer}, editing::read_corpus(work_.at("moments")),
                                     work_.at("cache"))
                 .front();
    return *held;
  }

  static editing::BatchMethod batch_method(const std::string& method) {
    return method == "memit"   ? editing::BatchMethod::memit
           : method == "emmet" ? editing::BatchMethod::emmet
                               : editing::BatchMethod::alphaedit;
  }

  editing::BatchRequest batch_request(const std::string& method, const std::vector<std::int64_t>& which) {
    auto request = editing::default_batch_request(batch_method(method), exact().config());
    request.looked_for_on = model_->narrow();
    if (const auto given = work_.find("null_threshold"); given != work_.end() && !given->is_null())
      request.null_threshold = *given;
    if (!batch_prefixes_) batch_prefixes_ = editing::batch_prefixes(exact(), *tokenizer_, request);
    request.sampled = batch_prefixes_;
    for (const auto fact : which) request.facts.push_back(facts_[fact].edited);
    return request;
  }

  std::vector<std::int64_t> layers_of(const std::string& method) const {
    return editing::default_batch_layers(batch_method(method), exact().config());
  }

  /// On the model as loaded, of every fact: what all batch methods whose last layer is this one share.
  const editing::BatchValues& values(const std::string& method) {
    const auto layer = layers_of(method).back();
    if (const auto held = values_.find(layer); held != values_.end()) return held->second;
    const std::string path = work_.at("values").get<std::string>() + "." + std::to_string(layer) + ".safetensors";
    bench::KeptValues kept(path, work_.at("of"));
    while (kept.count() < count_of_facts()) {
      constexpr std::int64_t kAtOnce = 20;
      std::vector<std::int64_t> some(std::min(kAtOnce, count_of_facts() - kept.count()));
      std::iota(some.begin(), some.end(), kept.count());
      auto request = batch_request(method, some);
      Stopwatch watch;
      auto found = editing::batch_values(exact(), *tokenizer_, request, layer);
      if (const auto* refusal = std::get_if<editing::Refusal>(&found)) throw std::runtime_error(refusal->reason);
      kept.add(std::get<editing::BatchValues>(found), watch.lap());
    }
    values_seconds_ = kept.seconds() / static_cast<double>(kept.count());
    return values_.emplace(layer, kept.values(exact().options().device)).first->second;
  }

  struct Solved {
    std::vector<editing::WeightDelta> deltas;
    std::vector<at::Tensor> keys;  ///< a layer, of the batch methods
    std::string refused;
  };

  template <class Solution>
  static std::optional<Solution> solution_of(std::variant<Solution, editing::Refusal> outcome, Solved& solved) {
    if (const auto* refusal = std::get_if<editing::Refusal>(&outcome)) {
      solved.refused = refusal->reason;
      return std::nullopt;
    }
    return std::get<Solution>(std::move(outcome));
  }

  /// `kept`, by layer, is what alphaedit spares; `values` are those of `which`, where they are known.
  Solved solve(const std::string& method, const std::vector<std::int64_t>& which, const std::vector<at::Tensor>& kept,
               const editing::BatchValues* values) {
    Solved solved;
    if (method == "rome") {
      editing::RomeRequest request;
      static_cast<editing::EditedFact&>(request) = facts_[which.front()].edited;
      request.prefixes = work_.at("rome_prefixes");
      if (work_.value("rome_variant", "averaged") == "original")
        request.variant = editing::RomeRequest::Variant::original;
      request.looked_for_on = model_->narrow();
      if (!rome_prefixes_) rome_prefixes_ = editing::rome_prefixes(exact(), *tokenizer_, request);
      request.sampled = rome_prefixes_;
      const auto& C = moment(editing::default_rome_layer(exact().config()));
      if (auto made = solution_of(editing::solve_rome(exact(), *tokenizer_, request, C), solved))
        solved.deltas = {std::move(made->delta)};
    } else if (method == "ft") {
      editing::FineTuneRequest request;
      for (const auto fact : which) request.facts.push_back(facts_[fact].edited);
      request.layer = editing::default_rome_layer(exact().config());
      if (auto made = solution_of(editing::solve_fine_tune(exact(), *tokenizer_, request), solved))
        solved.deltas = {std::move(made->delta)};
    } else {
      std::vector<const editing::SecondMoment*> moments;
      for (const auto layer : layers_of(method)) moments.push_back(&moment(layer));
      if (auto made = solution_of(
              editing::solve_batch(exact(), *tokenizer_, batch_request(method, which), moments, kept, values),
              solved)) {
        solved.deltas = std::move(made->deltas);
        solved.keys = std::move(made->keys);
      }
    }
    return solved;
  }

  // ---- scores ------------------------------------------------------------------------------------

  double perplexity() const {
    const at::NoGradGuard no_grad;
    double nll = 0;
    std::int64_t predicted = 0;
    for (const auto& row : text_) {
      const std::vector<model::Row> rows{row};
      const auto next = at::tensor(row.tokens, at::kLong).narrow(0, 1, std::ssize(row.tokens) - 1);
      model::Pass pass;
      pass.rows = &rows;
      std::vector<std::int64_t> all(row.tokens.size() - 1);
      std::iota(all.begin(), all.end(), 0);
      pass.logits_at = all;
      pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
        const auto wanted = next.narrow(0, first, logits.size(0)).to(logits.device()).unsqueeze(1);
        nll -= logits.to(at::kFloat).log_softmax(-1).gather(1, wanted).sum(at::kDouble).item<double>();
        predicted += logits.size(0);
      };
      model_->read_on().forward(pass);
    }
    return std::exp(nll / static_cast<double>(predicted));
  }

  /// The means over `which`, each fact weighing one, of both families of numbers: `_nll` says which of two
  /// continuations has the lower mean token NLL, `_argmax` whether every token of one is the likeliest.
  json scores(const std::vector<std::int64_t>& which) const {
    std::vector<editing::ContinuedPrompt> prompts;
    const auto ask = [&](const std::string& prompt, const std::string& first, const std::string& second) {
      const auto tokens = tokenizer_->encode(prompt, true);
      prompts.push_back({tokens, tokenizer_->encode(first)});
      prompts.push_back({tokens, tokenizer_->encode(second)});
    };
    for (const auto each : which) {
      const auto& [edited, from, paraphrases, neighbours] = facts_[each];
      auto rewrite = edited.prompt_template;
      rewrite.replace(rewrite.find("{}"), 2, edited.subject);
      ask(rewrite, edited.target, from);
      for (const auto& text : paraphrases) ask(text, edited.target, from);
      for (const auto& neighbour : neighbours) ask(neighbour.prompt, neighbour.answer, edited.target);
    }
    const auto scored = editing::target_scores(model_->read_on(), prompts);
    std::map<std::string, double> sums;
    std::size_t at = 0;
    const auto add = [&](const std::string& name, std::size_t count) {
      double nll = 0, argmax = 0;
      for (std::size_t i = 0; i < count; ++i, at += 2) {
        const auto mean = [&](std::size_t k) {
          return scored[k].log_probability / static_cast<double>(prompts[k].target.size());
        };
        nll += mean(at) > mean(at + 1);
        argmax += scored[at].is_argmax;
      }
      if (count == 0) return;
      sums[name + "_nll"] += nll / static_cast<double>(count);
      sums[name + "_argmax"] += argmax / static_cast<double>(count);
      sums[name + "_facts"] += 1;
    };
    for (const auto each : which) {
      add("efficacy", 1);
      add("paraphrase", facts_[each].paraphrases.size());
      add("specificity", facts_[each].neighbours.size());
    }
    json line;
    for (const std::string name : {"efficacy", "paraphrase", "specificity"}) {
      if (!sums.contains(name + "_facts")) continue;
      for (const std::string family : {"_nll", "_argmax"})
        line[name + family] = sums[name + family] / sums[name + "_facts"];
    }
    return line;
  }

  std::vector<std::int64_t> first(std::int64_t count) const {
    std::vector<std::int64_t> which(count);
    std::iota(which.begin(), which.end(), 0);
    return which;
  }

  // ---- modes -------------------------------------------------------------------------------------

  /// What bench/edit_references.py gives to the other side.
  void share(const std::string& method) {
    json line = {{"method", method}, {"mode", "export"}};
    std::vector<std::int64_t> layers = {editing::default_rome_layer(exact().config())};
    if (method == "rome") {
      editing::RomeRequest request;
      request.prefixes = work_.at("rome_prefixes");
      rome_prefixes_ = editing::rome_prefixes(exact(), *tokenizer_, request);
      line["prefixes"] = *rome_prefixes_;
    } else {
      const auto request = batch_request(method, {});
      layers = layers_of(method);
      line.update({{"prefixes", *batch_prefixes_},
                   {"covariance_weight", request.covariance_weight},
                   {"null_threshold", request.null_threshold},
                   {"ridge", request.ridge}});
    }
    std::vector<std::pair<std::string, at::Tensor>> moments;
    for (const auto layer : layers) moments.emplace_back(std::to_string(layer), moment(layer).C);
    editing::write_float_tensors(work_.at("deltas").get<std::string>() + "/moments.safetensors", moments, {});
    line["layers"] = layers;
    print(line);
  }

  void write(const std::string& method, std::int64_t fact, const std::vector<editing::WeightDelta>& deltas) const {
    std::vector<std::pair<std::string, at::Tensor>> changes;
    for (const auto& delta : deltas) changes.emplace_back(delta.tensor, delta.left.mm(delta.right));
    editing::write_float_tensors(
        work_.at("deltas").get<std::string>() + "/" + method + "-" + std::to_string(fact) + ".safetensors", changes,
        {});
  }

  void baseline() {
    auto line = scores(first(count_of_facts()));
    line.update({{"method", "none"}, {"mode", "baseline"}, {"n", count_of_facts()}, {"perplexity", perplexity()}});
    print(line);
  }

  bool shares_values(const std::string& method) const { return method != "rome" && method != "ft"; }

  /// Second moments, their factors and generated prefixes are made once, of the model as loaded, and are no edit's
  /// time.
  void prepare(const std::string& method, const editing::BatchValues* known) {
    if (method == "ft" || !prepared_.insert(method).second) return;
    const auto first = known ? std::optional(known->select({0})) : std::nullopt;
    solve(method, {0}, {}, first ? &*first : nullptr);
  }

  /// Every fact by itself on the model as loaded.
  void single(const std::string& method, const json& item) {
    const std::int64_t every = item.value("perplexity_every", std::int64_t{10});
    const auto end = std::min(item.value("to", count_of_facts()), count_of_facts());
    const auto* shared = shares_values(method) && !item.value("own_values", false) ? &values(method) : nullptr;
    prepare(method, shared);
    for (std::int64_t fact = item.value("from", std::int64_t{0}); fact < end; ++fact) {
      const auto own = shared ? std::optional(shared->select({fact})) : std::nullopt;
      Stopwatch watch;
      const auto solved = solve(method, {fact}, {}, own ? &*own : nullptr);
      const double seconds = watch.lap() + (shared ? values_seconds_ : 0);
      if (work_.contains("deltas")) write(method, fact, solved.deltas);
      json line = json::object();
      if (work_.value("score", true)) {
        model_->apply(solved.deltas);
        line = scores({fact});
        if (fact % every == 0) line["perplexity"] = perplexity();
        model_->restore();
      }
      line.update({{"method", method}, {"mode", "single"}, {"fact", fact}, {"seconds", seconds}});
      if (!solved.refused.empty()) line["refused"] = solved.refused;
      print(line);
    }
  }

  /// The first `count` facts whose texts differ up to the subject's end, of which a key is made: emmet, which meets
  /// every fact, cannot write two to one key.
  std::vector<std::int64_t> first_of_own_key(std::int64_t count) const {
    std::set<std::string> known;
    std::vector<std::int64_t> which;
    for (std::int64_t fact = 0; fact < count_of_facts() && std::ssize(which) < count; ++fact) {
      const auto& edited = facts_[fact].edited;
      const auto before = edited.prompt_template.substr(0, edited.prompt_template.find("{}"));
      if (known.insert(before + edited.subject).second) which.push_back(fact);
    }
    return which;
  }

  /// So many facts at once.
  void batch(const std::string& method, std::int64_t count) {
    const auto which = method == "emmet" ? first_of_own_key(count) : first(count);
    const auto own = shares_values(method) ? std::optional(values(method).select(which)) : std::nullopt;
    prepare(method, own ? &*own : nullptr);
    Stopwatch watch;
    const auto solved = solve(method, which, {}, own ? &*own : nullptr);
    const double seconds = watch.lap() + (own ? values_seconds_ * static_cast<double>(count) : 0);
    model_->apply(solved.deltas);
    auto line = scores(which);
    line.update(
        {{"method", method}, {"mode", "batch"}, {"n", count}, {"seconds", seconds}, {"perplexity", perplexity()}});
    if (!solved.refused.empty()) line["refused"] = solved.refused;
    model_->restore();
    print(line);
  }

  /// One after another, each on the weights that the ones before left; keys and values are made anew. Goes on from
  /// what the item's "kept" holds, and keeps it there.
  void sequence(const std::string& method, const json& item) {
    constexpr std::int64_t kKeepEvery = 10;
    const std::string path = item.at("kept"), of = work_.at("of");
    prepare(method, nullptr);
    auto state = model_->resume(path, of);
    for (const std::int64_t wanted : item.at("counts")) {
      const auto count = std::min(wanted, count_of_facts());
      if (count <= state.done) continue;
      while (state.done < count) {
        Stopwatch watch;
        const auto solved = solve(method, {state.done}, state.spared, nullptr);
        model_->apply(solved.deltas);
        state.seconds += watch.lap();
        state.refused += !solved.refused.empty();
        if (method == "alphaedit" && solved.refused.empty()) {
          state.spared.resize(solved.keys.size());
          for (std::size_t i = 0; i < solved.keys.size(); ++i) {
            auto& spared = state.spared[i];
            const auto keys = solved.keys[i].to(at::kFloat).to(at::kDouble);  // as they are kept
            spared = spared.defined() ? at::cat({spared, keys}, 1) : keys;
          }
        }
        ++state.done;
        print({{"mode", "progress"}, {"method", method}, {"n", state.done}, {"seconds", state.seconds}});
        if (state.done % kKeepEvery == 0 && state.done < count) model_->keep(state, path, of);
      }
      auto line = scores(first(count));
      line.update({{"method", method},
                   {"mode", "sequence"},
                   {"n", count},
                   {"seconds", state.seconds},
                   {"refused_facts", state.refused},
                   {"perplexity", perplexity()}});
      print(line);
      model_->keep(state, path, of);
    }
    model_->restore();
  }

  const json& work_;
  std::vector<BenchFact> facts_;
  std::shared_ptr<const model::Tokenizer> tokenizer_;
  std::optional<bench::EditedModel> model_;
  std::vector<model::Row> text_;
  std::map<std::int64_t, std::optional<editing::SecondMoment>> moments_;
  std::map<std::int64_t, editing::BatchValues> values_;
  double values_seconds_ = 0;
  std::set<std::string> prepared_;
  std::optional<std::vector<std::string>> batch_prefixes_, rome_prefixes_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: proviso_bench_edits MODEL WORK.json\n";
    return 2;
  }
  try {
    const auto work = json::parse(std::ifstream(argv[2]));
    at::set_num_threads(work.at("threads"));
    model::reuse_freed_memory();
    Bench(argv[1], work).run();
  } catch (const std::exception& error) {
    std::cerr << "proviso_bench_edits: " << error.what() << "\n";
    return 2;
  }
}
