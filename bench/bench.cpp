// Our side of bench/run.py: runs one piece of work several times and prints a line of JSON,
// {"seconds": [...], ...}. Inputs are token ids by formula, so that both sides run the same.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "editing/rome.hpp"
#include "runtime/hooks.hpp"
#include "runtime/model/allocation.hpp"
#include "runtime/model/random.hpp"
#include "runtime/model/transformer.hpp"

namespace {

using namespace proviso;
using nlohmann::json;

using Work = std::function<void()>;

double seconds_of(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  if (at::hasCUDA()) at::detail::getCUDAHooks().deviceSynchronize(0);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Bench {
  const model::Transformer& transformer;
  const model::Tokenizer& tokenizer;
  int repeats;

  /// Several works in turns, so that a slow spell of the machine meets all. The first round warms up and
  /// is not counted.
  json timed(const std::map<std::string, Work>& works) const {
    json seconds;
    for (int round = 0; round <= repeats; ++round) {
      for (const auto& [name, work] : works) {
        const double taken = seconds_of(work);
        if (round > 0) seconds[name].push_back(taken);
      }
    }
    return seconds;
  }
  json timed(Work work) const { return timed({{"seconds", std::move(work)}}); }
};

/// run.py knows the same formula.
std::vector<std::int64_t> formula_tokens(std::int64_t row, std::int64_t length) {
  std::vector<std::int64_t> tokens;
  for (std::int64_t i = 0; i < length; ++i) tokens.push_back(1000 + (row * 7919 + i * 104729) % 20000);
  return tokens;
}

std::vector<model::Row> formula_rows(std::int64_t rows, std::int64_t length) {
  std::vector<model::Row> made;
  for (std::int64_t row = 0; row < rows; ++row) made.push_back({formula_tokens(row, length), length});
  return made;
}

std::vector<std::int64_t> last_tokens(const std::vector<model::Row>& rows) {
  std::vector<std::int64_t> last;
  std::int64_t end = 0;
  for (const model::Row& row : rows) last.push_back((end += static_cast<std::int64_t>(row.tokens.size())) - 1);
  return last;
}

/// Logits after each row's last token, in one tensor [rows, vocabulary].
at::Tensor last_logits(const model::Transformer& transformer, const std::vector<model::Row>& rows,
                       model::KeyValueCache* cache = nullptr, model::SiteVisitor* visitor = nullptr) {
  std::vector<at::Tensor> chunks;
  model::Pass pass;
  pass.rows = &rows;
  pass.cache = cache;
  pass.visitor = visitor;
  pass.logits_at = last_tokens(rows);
  pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits.clone()); };
  transformer.forward(pass);
  return at::cat(chunks);
}

json forward(const Bench& bench) {
  const auto rows = formula_rows(16, 128);
  return bench.timed([&] { last_logits(bench.transformer, rows); });
}

std::vector<runtime::Direction> random_features(const model::ModelConfig& config, std::int64_t count,
                                                std::int64_t layers) {
  model::NormalSource normal(7);
  std::vector<runtime::Direction> features;
  for (std::int64_t i = 0; i < count; ++i) {
    const at::Tensor d = at::empty({config.width}, at::kDouble);
    for (std::int64_t j = 0; j < config.width; ++j) d.data_ptr<double>()[j] = normal.next();
    runtime::Direction feature;
    feature.site = {dsl::SiteKind::resid_post, config.layers / 6 + i % layers, -1};
    feature.d = d / d.norm();
    features.push_back(std::move(feature));
  }
  return features;
}

dsl::Intervention sentence(dsl::Operation operation, std::size_t feature, double amount, dsl::ConditionPtr condition) {
  dsl::Intervention made;
  made.operation = operation;
  made.feature = feature;
  made.amount = amount;
  made.condition = std::move(condition);
  return made;
}

dsl::ConditionPtr above(std::size_t feature, double threshold) {
  return std::make_shared<const dsl::Condition>(
      dsl::Condition{dsl::Comparison{feature, dsl::Compare::greater, threshold}, {}});
}

std::size_t add(runtime::HookProgram& program, const dsl::Intervention& sentence, const dsl::Site& site) {
  return program.add(sentence, {site}, false, {}, {});
}

/// What begins and runs a program's hooks over `rows`.
struct Hooked {
  runtime::HookPass pass;
  std::vector<runtime::RowMemory> memories;

  Hooked(const runtime::HookProgram& program, std::size_t rows)
      : pass(program), memories(rows, program.conditions().begin_row("")) {}
  model::SiteVisitor* begin() {
    std::vector<runtime::RowMemory*> pointers;
    for (runtime::RowMemory& memory : memories) pointers.push_back(&memory);
    pass.begin(std::move(pointers));
    return &pass;
  }
};

/// `suppress f when f > t` for 100 features in 21 layers, t the value that 1 % of the positions exceed.
json features(const Bench& bench) {
  const auto rows = formula_rows(16, 128);
  const auto directions = random_features(bench.transformer.config(), 100, 21);
  const at::Device device = bench.transformer.options().device;

  runtime::HookProgram reading(directions, bench.transformer.card());
  for (std::size_t i = 0; i < directions.size(); ++i) reading.record(i);
  reading.finish(device);
  Hooked reader(reading, rows.size());
  last_logits(bench.transformer, rows, nullptr, reader.begin());

  runtime::HookProgram program(directions, bench.transformer.card());
  for (std::size_t i = 0; i < directions.size(); ++i) {
    const auto seen = reader.pass.activation(i);
    std::vector<float> values(seen.begin(), seen.end());
    const auto rank = values.begin() + static_cast<std::ptrdiff_t>(values.size() * 99 / 100);
    std::nth_element(values.begin(), rank, values.end());
    add(program, sentence(dsl::Operation::suppress, i, 1, above(i, *rank)), directions[i].site);
  }
  program.finish(device);

  return bench.timed({{"plain", [&] { last_logits(bench.transformer, rows); }}, {"seconds", [&] {
                                                                                   Hooked hooked(program, rows.size());
                                                                                   last_logits(bench.transformer, rows,
                                                                                               nullptr, hooked.begin());
                                                                                 }}});
}

json shared_prefix(const Bench& bench) {
  const std::vector<model::Row> prefix = formula_rows(1, 200);
  std::vector<model::Row> rows;
  for (std::int64_t row = 1; row <= 256; ++row) rows.push_back({formula_tokens(row, 14), 214});
  return bench.timed([&] {
    model::KeyValueCache cache;
    model::Pass first;
    first.rows = &prefix;
    first.cache = &cache;
    bench.transformer.forward(first);
    for (std::size_t begin = 0; begin < rows.size(); begin += 64) {
      const std::vector<model::Row> batch(rows.begin() + begin, rows.begin() + begin + 64);
      model::KeyValueCache forked = cache.fork(64);
      last_logits(bench.transformer, batch, &forked);
    }
  });
}

json generation(const Bench& bench) {
  const auto directions = random_features(bench.transformer.config(), 1, 1);
  runtime::HookProgram program(directions, bench.transformer.card());
  add(program, sentence(dsl::Operation::steer, 0, 2, nullptr), directions[0].site);
  program.finish(bench.transformer.options().device);
  return bench.timed([&] {
    Hooked hooked(program, 8);
    model::KeyValueCache cache;
    std::vector<model::Row> rows = formula_rows(8, 16);
    for (int step = 0; step < 64; ++step) {
      const at::Tensor next = last_logits(bench.transformer, rows, &cache, hooked.begin()).argmax(1).cpu();
      for (std::size_t row = 0; row < rows.size(); ++row) {
        rows[row].tokens = {next[static_cast<std::int64_t>(row)].item<std::int64_t>()};
      }
    }
  });
}

/// One ROME edit; run.py repeats its optimisation with whole forward passes over the same prompts.
json rome(const Bench& bench) {
  const std::string before, subject = "The Eiffel Tower", after = " is located in the city of", target = " Rome";
  editing::RomeRequest request;
  request.subject = subject;
  request.prompt_template = "{}" + after;
  request.target = target;
  request.early_stop = 0;  // every step, on both sides

  editing::SecondMoment moment;
  moment.layer = editing::default_rome_layer(bench.transformer.config());
  moment.C = at::eye(bench.transformer.config().neurons, at::kDouble);  // the optimisation does not read it
  moment.tokens = 1;

  json result = {{"seconds", json::array()}};
  for (int i = 0; i < bench.repeats; ++i) {
    const auto solved = editing::solve_rome(bench.transformer, bench.tokenizer, request, moment);
    const auto& solution = std::get<editing::RomeSolution>(solved);
    result["seconds"].push_back(solution.seconds.optimisation);
    result["steps"] = solution.losses.size();
  }
  const std::vector<std::int64_t> continuation = bench.tokenizer.encode(target);
  const auto described = [&](const std::string& prefix, const std::string& rest) {
    const auto prompt = editing::locate_subject(bench.tokenizer, prefix, subject, rest);
    return json{{"tokens", prompt.tokens}, {"subject_last", prompt.subject_last}};
  };
  result["layer"] = moment.layer;
  result["target"] = continuation;
  result["anchor"] = described(before, " is a");
  result["prompts"] = {described(before, after)};
  const std::int64_t half = request.prefixes / 2;
  for (const std::string& prefix : editing::sample_prefixes(bench.transformer, bench.tokenizer,
                                                            {{half, 5}, {request.prefixes - half, 10}}, request.seed)) {
    result["prompts"].push_back(described(prefix + ". ", after));
  }
  return result;
}

const std::map<std::string, json (*)(const Bench&)> kWorks = {
    {"forward", forward},       {"features", features}, {"shared_prefix", shared_prefix},
    {"generation", generation}, {"rome", rome},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6 || argc > 7 || !kWorks.contains(argv[1])) {
    std::cerr << "usage: proviso_bench WORK MODEL float32|bfloat16 THREADS REPEATS [DEVICE]; WORK is one of";
    for (const auto& [name, work] : kWorks) std::cerr << ' ' << name;
    std::cerr << '\n';
    return 2;
  }
  const std::string path = argv[2];
  at::set_num_threads(std::stoi(argv[4]));
  model::reuse_freed_memory();
  const model::ModelCard card = model::read_model_card(path);
  const auto dtype = std::strcmp(argv[3], "bfloat16") == 0 ? at::kBFloat16 : at::kFloat;
  const auto transformer = model::Transformer::load(card, {dtype, at::Device(argc > 6 ? argv[6] : "cpu")});
  const auto tokenizer = model::Tokenizer::load(path);
  std::cout << kWorks.at(argv[1])({*transformer, *tokenizer, std::stoi(argv[5])}).dump() << std::endl;
}
