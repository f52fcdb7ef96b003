#include "runtime/bind.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "dsl/check.hpp"
#include "dsl/fact_file.hpp"
#include "dsl/metric_traits.hpp"
#include "dsl/number_text.hpp"
#include "dsl/prompt_file.hpp"
#include "runtime/attacks.hpp"
#include "runtime/circuits/circuit_graph.hpp"
#include "runtime/condition.hpp"
#include "runtime/formats/safetensors.hpp"

namespace proviso::runtime {

using dsl::Code;
using model::InputError;

std::vector<dsl::Site> BoundRules::expand(const std::vector<dsl::SiteSpec>& specs) const {
  std::vector<dsl::Site> sites;
  for (const auto& spec : specs) {
    const auto layers =
        dsl::site_has_layer(spec.kind) ? spec.layers.expand(card->config.layers) : std::vector<std::int64_t>{-1};
    const auto heads = spec.heads ? spec.heads->expand(card->site_heads(spec.kind)) : std::vector<std::int64_t>{-1};
    for (std::int64_t layer : layers) {
      for (std::int64_t head : heads) sites.push_back(dsl::canonical({spec.kind, layer, head}));
    }
  }
  return sites;
}

std::vector<dsl::Site> BoundRules::sites_of(const dsl::Intervention& sentence) const {
  return sentence.sites.empty() ? std::vector{feature_sites[sentence.feature]} : expand(sentence.sites);
}

std::int64_t BoundRules::token_id(const std::string& text) const { return tokenizer->encode(text).at(0); }

namespace {

std::string quoted(const std::string& text) { return "`" + text + "`"; }

class Binder {
 public:
  Binder(std::shared_ptr<const dsl::RuleSet> rules, const model::ModelCard& card,
         std::shared_ptr<const model::Tokenizer> tokenizer, const std::string& cache_directory, std::uint64_t seed)
      : rules_(*rules), card_(card), cache_directory_(cache_directory) {
    bound_.seed = seed;
    bound_.rules = std::move(rules);
    bound_.card = &card;
    bound_.tokenizer = std::move(tokenizer);
  }

  dsl::Outcome<BoundRules> run() {
    requirements();
    if (!dsl::has_errors(diagnostics_)) {
      for (const auto& declaration : rules_.prompts) prompts(declaration);
      for (const auto& declaration : rules_.features) feature(declaration);
      if (!dsl::has_errors(diagnostics_)) {
        for (const auto& declaration : rules_.features) construction(declaration);
        for (const auto& rule : rules_.rules) {
          for (const auto& sentence : rule.interventions) intervention(sentence);
        }
        for (const auto& edit : rules_.edits) this->edit(edit);
        for (const auto& circuit : rules_.circuits) this->circuit(circuit);
        for (dsl::CheckId id = 0; id < rules_.checks.size(); ++id) {
          const auto& check = rules_.checks[id];
          for (const auto& measured : check.expectations) {
            if (!check.under_attacks.empty()) attack(id, measured);
            expectation(measured, check.under_edits, check.under_attacks.empty() ? std::nullopt : std::optional(id));
          }
        }
      }
    }
    dsl::Outcome<BoundRules> outcome;
    outcome.diagnostics = std::move(diagnostics_);
    if (!dsl::has_errors(outcome.diagnostics)) outcome.value = std::move(bound_);
    return outcome;
  }

 private:
  void error(Code code, dsl::Span span, std::string message, std::vector<std::string> help = {}) {
    diagnostics_.push_back(dsl::make_diagnostic(code, span, std::move(message), std::move(help)));
  }

  void requirements() {
    if (!rules_.model) return;
    const auto& need = *rules_.model;
    const auto refuse = [&](const std::string& what, const std::string& asked, const std::string& has) {
      error(Code::wrong_model, need.span,
            "this file is for a model with " + what + " " + asked + "; " + card_.name + " has " + what + " " + has,
            {"audit the model that the file was written for, or change `model { … }`"});
    };
    const std::string family(model::family_name(card_.config.family));
    if (need.family && *need.family != family) refuse("family", *need.family, family);
    if (need.layers && *need.layers != card_.config.layers) {
      refuse("layers", std::to_string(*need.layers), std::to_string(card_.config.layers));
    }
    if (need.width && *need.width != card_.config.width) {
      refuse("width", std::to_string(*need.width), std::to_string(card_.config.width));
    }
    if (need.sha256) {
      const std::string has = card_.sha256(cache_directory_);
      if (*need.sha256 != has) refuse("sha256", *need.sha256, has);
    }
  }

  // ---- prompts -------------------------------------------------------------------------------

  template <class Item>
  std::vector<Item> read_file(const dsl::PromptFile& file,
                              dsl::Outcome<std::vector<Item>> (*read)(const dsl::PromptFile&, std::string_view)) {
    try {
      const auto mapped = model::MappedFile::open(file.path);
      auto outcome = read(file, mapped->text());
      diagnostics_.insert(diagnostics_.end(), outcome.diagnostics.begin(), outcome.diagnostics.end());
      if (outcome.value) return std::move(*outcome.value);
    } catch (const InputError& failure) {
      error(Code::unreadable_file, file.span, failure.what(), {"name a file that exists and can be read"});
    }
    return {};
  }

  void prompts(const dsl::PromptsDecl& declaration) {
    std::vector<dsl::Prompt> texts;
    if (const auto* inline_prompts = std::get_if<std::vector<dsl::Prompt>>(&declaration.source)) {
      texts = *inline_prompts;
    } else {
      texts = read_file(std::get<dsl::PromptFile>(declaration.source), dsl::read_prompt_file);
    }
    BoundPrompts bound;
    Texts written;
    std::map<std::string, std::int64_t> clusters;
    for (const auto& prompt : texts) {
      const auto cluster = static_cast<std::int64_t>(bound.size());
      const auto span = prompt.span.end > prompt.span.begin ? prompt.span : declaration.span;
      if (auto one = tokenise(declaration, prompt, span)) {
        // Copies of one prompt say what one says.
        const std::string key = prompt.cluster.empty() ? "text " + prompt.text : "cluster " + prompt.cluster;
        one->cluster = clusters.emplace(key, cluster).first->second;
        bound.push_back(std::move(*one));
        written.push_back(prompt.text);
      }
    }
    bound_.prompts.push_back(std::move(bound));
    written_.push_back(std::move(written));
  }

  /// The tokens that the model is given for a text of a set.
  void encode(const std::optional<dsl::Chat>& chat, const std::string& text, BoundPrompt& bound) const {
    if (chat) {
      std::vector<model::ChatMessage> messages;
      if (chat->system) messages.push_back({"system", *chat->system});
      messages.push_back({"user", text});
      bound.text = model::apply_chat_template(*bound_.tokenizer, messages);
    } else {
      bound.text = text;
    }
    bound.tokens = bound_.tokenizer->encode(bound.text, /*add_special=*/!chat);
  }

  std::optional<BoundPrompt> tokenise(const dsl::PromptsDecl& declaration, const dsl::Prompt& prompt, dsl::Span span) {
    BoundPrompt bound;
    try {
      encode(declaration.chat, prompt.text, bound);
      for (const auto& answer : prompt.answers) bound.answers.push_back(bound_.tokenizer->encode(answer));
      bound.answer_texts = prompt.answers;
    } catch (const InputError& failure) {
      error(declaration.chat ? Code::no_chat_template : Code::unreadable_text, span, failure.what());
      return std::nullopt;
    }
    if (bound.tokens.empty()) {
      error(Code::empty_prompt, span, "this prompt has no tokens", {"write at least one word"});
      return std::nullopt;
    }
    std::size_t longest = 0;
    for (std::size_t i = 0; i < bound.answers.size(); ++i) {
      longest = std::max(longest, bound.answers[i].size());
      if (bound.answers[i].empty()) error(Code::empty_prompt, span, "an expected continuation has no tokens");
    }
    context(bound.tokens.size() + longest, span);
    return bound;
  }

  void context(std::size_t tokens, dsl::Span span, const std::string& text = "this text") {
    if (static_cast<std::int64_t>(tokens) <= card_.config.context) return;
    error(Code::beyond_context, span,
          text + " takes " + std::to_string(tokens) + " tokens, and the model's context holds " +
              std::to_string(card_.config.context),
          {"shorten the text, or split it into several prompts"});
  }

  void each_single_token(const std::vector<std::string>& texts, dsl::Span span) {
    for (const auto& text : texts) single_token(text, span);
  }

  void single_token(const std::string& text, dsl::Span span) {
    const auto ids = bound_.tokenizer->encode(text);
    if (ids.size() == 1) return;
    std::string parts;
    for (std::int64_t id : ids) parts += (parts.empty() ? "\"" : "\" \"") + bound_.tokenizer->decode(std::vector{id});
    error(Code::not_one_token, span,
          "\"" + text + "\" must be one token here, and this model splits it into " + std::to_string(ids.size()) +
              (ids.empty() ? "" : ": " + parts + "\""),
          {"write one token's text; most words need their leading space (\" word\")"});
  }

  // ---- attacks -------------------------------------------------------------------------------

  /// Makes the attacks of a check on all that one of its expectations is measured on, for every seed that it asks for.
  void attack(dsl::CheckId check, const dsl::Expectation& expectation) {
    const auto seeds = static_cast<std::uint64_t>(std::max<std::int64_t>(1, expectation.across.seeds));
    for (std::uint64_t seed = 0; seed < seeds; ++seed) {
      for (const dsl::PromptsId set : measured_sets(expectation)) {
        attack({check, seed, false, set}, bound_.prompts[set], written_[set], rules_.prompts[set].chat);
      }
      if (!std::holds_alternative<dsl::metric::Efficacy>(expectation.metric.node)) continue;
      for (const dsl::EditId edit : rules_.checks[check].under_edits) {
        BoundPrompts prompts;
        std::vector<std::string> texts;
        for (const auto& fact : bound_.facts[edit]) {
          prompts.push_back(fact.prompt);
          prompts.back().answers = {fact.to, fact.from};
          texts.push_back(fact.prompt.text);
        }
        attack({check, seed, true, edit}, prompts, texts, std::nullopt);
      }
    }
  }

  void attack(const AttackedKey& key, const BoundPrompts& prompts, const std::vector<std::string>& texts,
              const std::optional<dsl::Chat>& chat) {
    const auto [found, is_new] = bound_.attacked.emplace(key, AttackedPrompts{});
    if (!is_new) return;
    const auto& attacks = rules_.checks[key.check].under_attacks;
    AttackedPrompts& result = found->second;
    result.changed.resize(attacks.size(), 0);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      std::string text = texts[i];
      for (std::size_t place = 0; place < attacks.size(); ++place) {
        const auto& one = attacks[place];
        const auto distractors = one.kind == dsl::AttackKind::distractors ? written_[one.texts] : Texts{};
        const auto seed = attack_seed(bound_.seed + key.seed, texts[i], place);
        auto changed = attacked_text(one, text, seed, distractors);
        result.changed[place] += changed != text;
        text = std::move(changed);
      }
      BoundPrompt bound = prompts[i];
      encode(chat, text, bound);
      std::size_t longest = 0;
      for (const auto& answer : bound.answers) longest = std::max(longest, answer.size());
      context(bound.tokens.size() + longest, attacks.back().span, "under attack, \"" + texts[i] + "\"");
      result.prompts.push_back(std::move(bound));
    }
  }

  /// The sets that an expectation is measured on, as written.
  static std::vector<dsl::PromptsId> measured_sets(const dsl::Expectation& expectation) {
    auto sets = dsl::prompt_sets(expectation.metric);
    sets.insert(sets.end(), expectation.across.paraphrases.begin(), expectation.across.paraphrases.end());
    return sets;
  }

  // ---- sites and features ----------------------------------------------------------------------

  void site(const dsl::SiteSpec& spec) {
    if (const std::string why = card_.missing_site(spec.kind); !why.empty()) {
      error(Code::missing_site, spec.span, why);
      return;
    }
    const auto range = [&](const dsl::IndexSet& set, std::int64_t count, const char* what) {
      for (const auto& part : set.ranges) {
        if (part.last < count) continue;
        error(Code::index_out_of_range, spec.span,
              std::string(what) + " " + std::to_string(part.last) + " does not exist: " + card_.name + " has " +
                  std::to_string(count) + " " + what + "s at " + std::string(dsl::site_name(spec.kind)),
              {"the last " + std::string(what) + " is " + std::to_string(count - 1)});
        return;
      }
    };
    if (dsl::site_has_layer(spec.kind)) range(spec.layers, card_.config.layers, "layer");
    if (spec.heads) range(*spec.heads, card_.site_heads(spec.kind), "head");
  }

  void feature(const dsl::FeatureDecl& declaration) {
    std::vector<dsl::Site> sites;
    if (declaration.site) {
      site(*declaration.site);
      sites = bound_.expand({*declaration.site});
    }
    if (const auto* latent = std::get_if<dsl::Latent>(&declaration.constructor)) {
      const auto* card = autoencoder(latent->folder, latent->folder_span);
      if (card && !sites.empty() && sites.front() != card->site) {
        error(Code::latent_site, declaration.site->span,
              "the autoencoder of feature " + quoted(declaration.name) + " reads " + dsl::to_string(card->site) +
                  ", and not " + dsl::to_string(sites.front()),
              {"leave `at` out, or name an autoencoder of that site"});
      }
      if (card) sites = {card->site};
      if (card && latent->index >= card->d_sae) {
        error(Code::index_out_of_range, latent->span,
              "latent " + std::to_string(latent->index) + " does not exist: the autoencoder has " +
                  std::to_string(card->d_sae),
              {"the last is " + std::to_string(card->d_sae - 1)});
      }
    }
    bound_.feature_sites.push_back(sites.empty() ? dsl::Site{} : sites.front());
  }

  /// The headers of an autoencoder that suits the model; null where something is wrong, which has been said.
  const AutoencoderCard* autoencoder(const std::string& folder, dsl::Span span) {
    if (const auto known = bound_.autoencoders.find(folder); known != bound_.autoencoders.end()) return &known->second;
    if (refused_autoencoders_.contains(folder)) return nullptr;
    const std::size_t before = diagnostics_.size();
    try {
      auto card = read_autoencoder_card(folder);
      if (const auto why = misfit(card, card_); !why.empty()) error(Code::latent_site, span, why);
      if (diagnostics_.size() == before) return &bound_.autoencoders.emplace(folder, std::move(card)).first->second;
    } catch (const InputError& failure) {
      error(Code::unreadable_file, span, failure.what(),
            {"name a folder of SAELens, with cfg.json and sae_weights.safetensors"});
    }
    refused_autoencoders_.insert(folder);
    return nullptr;
  }

  void construction(const dsl::FeatureDecl& declaration) {
    const auto id = static_cast<dsl::FeatureId>(&declaration - rules_.features.data());
    const std::int64_t width = card_.site_width(bound_.feature_sites[id]);
    if (const auto* neuron = std::get_if<dsl::Neuron>(&declaration.constructor)) {
      if (neuron->index >= width) {
        error(Code::index_out_of_range, neuron->span,
              "neuron " + std::to_string(neuron->index) + " does not exist: " + card_.name + " has " +
                  std::to_string(width) + " at " + dsl::to_string(bound_.feature_sites[id]));
      }
    } else if (const auto* unembed = std::get_if<dsl::Unembed>(&declaration.constructor)) {
      single_token(unembed->plus, unembed->span);
      if (unembed->minus) single_token(*unembed->minus, unembed->span);
      if (width != card_.config.width) {
        error(Code::width_mismatch, declaration.site->span,
              "an `unembed` direction has the stream's width, " + std::to_string(card_.config.width) + "; " +
                  dsl::to_string(*declaration.site) + " has " + std::to_string(width));
      }
    } else if (const auto* stored = std::get_if<dsl::StoredDirection>(&declaration.constructor)) {
      stored_direction(*stored, width);
    } else if (!std::holds_alternative<dsl::Latent>(declaration.constructor)) {
      const auto built_from = [&](const auto& of) {
        contrast_tokens(declaration, of.p);
        contrast_tokens(declaration, of.q);
        if (of.zero.kind == dsl::ZeroPoint::Kind::mean_of) contrast_tokens(declaration, of.zero.prompts);
      };
      if (const auto* contrast = std::get_if<dsl::Contrast>(&declaration.constructor)) {
        built_from(*contrast);
      } else {
        built_from(std::get<dsl::Probe>(declaration.constructor));
      }
    }
  }

  void contrast_tokens(const dsl::FeatureDecl& declaration, dsl::PromptsId set) {
    if (bound_.prompts[set].empty()) {
      error(Code::empty_contrast, declaration.span,
            "feature " + quoted(declaration.name) + " is built from prompts of which there are none",
            {"give each side at least one prompt"});
      return;
    }
    for (const auto& prompt : bound_.prompts[set]) {
      const auto length = static_cast<std::int64_t>(prompt.tokens.size());
      const auto& token = declaration.token;
      std::int64_t position = length - 1;
      if (token.kind == dsl::TokenChoice::Kind::index) {
        position = token.index < 0 ? length + token.index : token.index;
        if (position < 0 || position >= length) {
          error(Code::prompt_too_short, declaration.span,
                "feature " + quoted(declaration.name) + " reads token " + std::to_string(token.index) + ", and \"" +
                    prompt.text + "\" has " + std::to_string(length),
                {"lengthen the prompt, or read `token last`"});
          return;
        }
      }
      if (position == 0) {
        error(Code::reads_sink, declaration.span,
              "feature " + quoted(declaration.name) + " reads position 0 of \"" + prompt.text +
                  "\", the attention sink, which says little of the text",
              {"write prompts of two tokens or more, and read a later token"});
        return;
      }
    }
  }

  void stored_direction(const dsl::StoredDirection& stored, std::int64_t width) {
    try {
      const auto file = model::read_safetensors(stored.path);
      std::vector<std::string> names;
      for (const auto& tensor : file.tensors) {
        names.push_back(tensor.name);
        if (tensor.name != stored.tensor) continue;
        if (tensor.elements() != width) {
          error(Code::width_mismatch, stored.span,
                quoted(stored.tensor) + " has " + std::to_string(tensor.elements()) + " elements, and the site has " +
                    std::to_string(width));
        }
        return;
      }
      const auto near = dsl::nearest_name(stored.tensor, names);
      error(Code::unknown_tensor, stored.span, stored.path + " holds no tensor " + quoted(stored.tensor),
            {near ? "did you mean " + quoted(*near) + "?" : "it holds " + std::to_string(names.size()) + " tensors"});
    } catch (const InputError& failure) {
      error(Code::unreadable_file, stored.span, failure.what());
    }
  }

  // ---- interventions -----------------------------------------------------------------------------

  void intervention(const dsl::Intervention& sentence) {
    const std::size_t errors_before = diagnostics_.size();
    for (const auto& spec : sentence.sites) site(spec);
    if (diagnostics_.size() != errors_before) return;
    const auto& own = bound_.feature_sites[sentence.feature];
    if (const auto* card = autoencoder_of(sentence.feature); card && card->is_transcoder()) {
      error(Code::not_yet_built, sentence.span,
            "feature " + quoted(bound_.feature_name(sentence.feature)) + " is a transcoder's latent, read at " +
                dsl::to_string(card->site) + " and written at " + dsl::to_string(card->written) +
                ": interventions on such latents are not built yet",
            {"read it in conditions and metrics, or act on a latent of an autoencoder"});
      return;
    }
    const std::int64_t width = card_.site_width(own);
    const auto sites = bound_.sites_of(sentence);
    for (const auto& where : sites) {
      if (card_.site_width(where) == width) continue;
      error(Code::width_mismatch, sentence.span,
            "feature " + quoted(bound_.feature_name(sentence.feature)) + " has " + std::to_string(width) +
                " elements, and " + dsl::to_string(where) + " has " + std::to_string(card_.site_width(where)),
            {"name sites of the same width, or build the feature there"});
      return;
    }
    if (sentence.condition) condition(*sentence.condition, sites);
  }

  void condition(const dsl::Condition& condition, const std::vector<dsl::Site>& sites) {
    std::visit(
        [&](const auto& node) {
          using Node = std::decay_t<decltype(node)>;
          if constexpr (std::is_same_v<Node, dsl::TokenIn>) {
            each_single_token(node.texts, condition.span);
          } else if constexpr (std::is_same_v<Node, dsl::Comparison>) {
            for (const auto* operand : {&node.left, &node.right}) {
              if (const auto* read = std::get_if<dsl::FeatureId>(operand)) read_order(*read, condition.span, sites);
              if (const auto* quantile = std::get_if<dsl::Quantile>(operand)) {
                if (bound_.prompts[quantile->prompts].empty()) {
                  error(Code::empty_contrast, condition.span, "a quantile over a set without prompts has no value");
                }
              }
            }
          } else if constexpr (std::is_same_v<Node, dsl::Any> || std::is_same_v<Node, dsl::Last> ||
                               std::is_same_v<Node, dsl::Not>) {
            this->condition(*node.of, sites);
          } else if constexpr (std::is_same_v<Node, dsl::And> || std::is_same_v<Node, dsl::Or>) {
            for (const auto& part : node.of) this->condition(*part, sites);
          }
        },
        condition.node);
  }

  void read_order(dsl::FeatureId feature, dsl::Span span, const std::vector<dsl::Site>& sites) {
    const dsl::Site& read = bound_.feature_sites[feature];
    for (const auto& where : sites) {
      if (!dsl::reached_before(where, read)) continue;
      const std::string name = quoted(bound_.feature_name(feature));
      error(Code::read_after_intervention, span,
            "feature " + name + " is read at " + dsl::to_string(read) + ", after this intervention at " +
                dsl::to_string(where),
            {"move the intervention to " + dsl::to_string(read) + " or later, or read " + bound_.feature_name(feature) +
             " at " + dsl::to_string(where) + " or earlier"});
      return;
    }
  }

  const AutoencoderCard* autoencoder_of(dsl::FeatureId feature) const {
    const auto* latent = std::get_if<dsl::Latent>(&rules_.features[feature].constructor);
    return latent ? &bound_.autoencoders.at(latent->folder) : nullptr;
  }

  // ---- edits and metrics ---------------------------------------------------------------------------

  void edit(const dsl::EditDecl& declaration) {
    const auto exists = [&](std::int64_t layer) {
      if (layer < card_.config.layers) return;
      error(Code::index_out_of_range, declaration.method.span,
            "layer " + std::to_string(layer) + " does not exist: " + card_.name + " has " +
                std::to_string(card_.config.layers) + " layers",
            {"the last layer is " + std::to_string(card_.config.layers - 1)});
    };
    if (const auto layer = declaration.method.parameters.find("layer"); layer != declaration.method.parameters.end())
      exists(static_cast<std::int64_t>(std::get<double>(layer->second)));
    if (declaration.method.layers) {
      for (const auto& range : declaration.method.layers->ranges) exists(range.last);
    }
    bound_.facts.emplace_back();
    for (const auto& change : declaration.changes) {
      if (const auto* fact = std::get_if<dsl::Fact>(&change)) {
        this->fact(*fact);
      } else if (const auto* file = std::get_if<dsl::FactFile>(&change)) {
        for (const auto& fact : read_file(file->file, dsl::read_fact_file)) this->fact(fact);
      } else if (const auto* direction = std::get_if<dsl::Remove>(&change)) {
        remove(*direction);
      } else {
        erase(std::get<dsl::Erase>(change));
      }
    }
    for (const auto& measured : declaration.expectations) {
      expectation(measured, {bound_.facts.size() - 1}, std::nullopt);
    }
  }

  void expectation(const dsl::Expectation& expectation, const std::vector<dsl::EditId>& edits,
                   std::optional<dsl::CheckId> attacked) {
    written_sets_ = measured_sets(expectation);
    sets_.clear();
    for (const dsl::PromptsId set : written_sets_) sets_.push_back(&bound_.prompts[set]);
    for (const auto& [key, under_attack] : bound_.attacked) {
      const bool measured = std::find(written_sets_.begin(), written_sets_.end(), key.id) != written_sets_.end();
      if (attacked == key.check && !key.facts && measured) sets_.push_back(&under_attack.prompts);
    }
    metric(expectation.metric);
    true_targets(expectation.metric, edits);
  }

  /// What weighs the new continuation against the old one needs both; of facts in files that is known only now.
  void true_targets(const dsl::Metric& metric, const std::vector<dsl::EditId>& edits) {
    const bool weighs = std::holds_alternative<dsl::metric::Efficacy>(metric.node) ||
                        std::holds_alternative<dsl::metric::Paraphrase>(metric.node) ||
                        std::holds_alternative<dsl::metric::Specificity>(metric.node);
    if (!weighs) return;
    for (const dsl::EditId edit : edits) {
      for (const auto& fact : bound_.facts[edit]) {
        if (fact.fact.from) continue;
        error(Code::no_true_target, metric.span,
              "the fact about \"" + fact.fact.subject + "\" names no old continuation to weigh the new one against",
              {"measure accuracy(P) on prompts that are to be continued by the new one"});
        return;
      }
    }
  }

  void fact(const dsl::Fact& fact) {
    const std::string prefix = fact.prompt_template.substr(0, fact.prompt_template.find("{}")) + fact.subject;
    if (bound_.tokenizer->encode(prefix, true).size() < 2) {
      error(Code::subject_at_sink, fact.span,
            "the last token of \"" + fact.subject +
                "\" is at position 0, the attention sink: an edit there breaks the "
                "model",
            {"write a template with words before the subject: \"I think that {} …\""});
    }
    BoundFact bound{fact, {}, {}, bound_.tokenizer->encode(fact.to)};
    if (fact.from) bound.from = bound_.tokenizer->encode(*fact.from);
    if (bound.to.empty() || (fact.from && bound.from.empty())) {
      error(Code::empty_prompt, fact.span, "a target has no tokens");
      return;
    }
    BoundPrompt& prompt = bound.prompt;
    prompt.text = prefix + fact.prompt_template.substr(fact.prompt_template.find("{}") + 2);
    prompt.tokens = bound_.tokenizer->encode(prompt.text, true);
    prompt.cluster = facts_++;
    context(prompt.tokens.size() + bound.to.size(), fact.span);
    bound_.facts.back().push_back(std::move(bound));
  }

  void remove(const dsl::Remove& remove) {
    const std::size_t before = diagnostics_.size();
    for (const auto& spec : remove.sites) site(spec);
    if (diagnostics_.size() != before) return;
    const auto width = card_.site_width(bound_.feature_sites[remove.feature]);
    for (const auto& where : bound_.expand(remove.sites)) {
      if (card_.site_width(where) == width) continue;
      error(Code::width_mismatch, remove.span,
            "feature " + quoted(bound_.feature_name(remove.feature)) + " has " + std::to_string(width) +
                " elements, and " + dsl::to_string(where) + " has " + std::to_string(card_.site_width(where)));
      return;
    }
  }

  void erase(const dsl::Erase& erase) {
    for (const auto& spec : erase.sites) site(spec);
    std::map<std::string, std::size_t> classes;
    for (std::size_t i = 0; i < erase.sets.size(); ++i) {
      if (!erase.by_answer) classes[std::to_string(i)] = 0;
      for (const auto& prompt : bound_.prompts[erase.sets[i]]) {
        if (prompt.tokens.size() < 2)
          error(Code::prompt_too_short, erase.span,
                "\"" + prompt.text + "\" is one token, the attention sink, where nothing is read",
                {"write prompts of two tokens or more"});
        if (erase.by_answer && prompt.answer_texts.empty()) {
          error(Code::no_answer, erase.span, "\"" + prompt.text + "\" names no class",
                {"give every record of the set an answer"});
          return;
        }
        ++classes[erase.by_answer ? prompt.answer_texts.front() : std::to_string(i)];
      }
    }
    const auto least = std::min_element(classes.begin(), classes.end(),
                                        [](const auto& a, const auto& b) { return a.second < b.second; });
    if (classes.size() >= 2 && least->second >= 2) return;
    error(Code::too_few_classes, erase.span,
          classes.size() < 2 ? "these prompts are all of one class" : "a class has fewer than two prompts",
          {"give two classes or more, of two prompts or more each: erase [she, he]"});
  }

  // ---- circuits --------------------------------------------------------------------------------------

  void circuit(const dsl::CircuitDecl& declaration) {
    using Kind = dsl::CircuitMeasure::Kind;
    const auto& measure = declaration.measure;
    BoundCircuit bound;
    bound.probability = measure.kind == Kind::probability;
    const std::size_t before = diagnostics_.size();
    if (measure.kind != Kind::answer_diff) single_token(measure.a, measure.span);
    if (measure.kind == Kind::logit_diff) single_token(measure.b, measure.span);
    if (diagnostics_.size() != before) return;
    for (const auto& sets : declaration.pairs) {
      const auto &clean = bound_.prompts[sets.clean], &corrupt = bound_.prompts[sets.corrupt];
      if (clean.empty() || clean.size() != corrupt.size()) {
        error(Code::unequal_pairs, sets.span,
              "there are " + std::to_string(clean.size()) + " clean prompts and " + std::to_string(corrupt.size()) +
                  " corrupt ones, which are paired in order",
              {"give every clean prompt its corrupt one, and at least one pair"});
        continue;
      }
      const std::int64_t clusters = std::ssize(bound.pairs);
      for (std::size_t i = 0; i < clean.size(); ++i) {
        BoundPair pair{clean[i], corrupt[i]};
        pair.clean.cluster += clusters;  // those of another set are other ones
        if (!paired(pair, sets.span)) continue;
        if (measure.kind == Kind::answer_diff) {
          if (!answers(pair, measure.span)) continue;
        } else {
          pair.raised = bound_.token_id(measure.a);
          if (measure.kind == Kind::logit_diff) pair.lowered = bound_.token_id(measure.b);
        }
        bound.pairs.push_back(std::move(pair));
      }
    }
    bound.edges = edges_kept(declaration);
    bound_.circuits.push_back(std::move(bound));
  }

  bool paired(const BoundPair& pair, dsl::Span span) {
    const std::string texts = "\"" + pair.clean.text + "\" and \"" + pair.corrupt.text + "\"";
    if (pair.clean.tokens == pair.corrupt.tokens) {
      error(Code::same_sides, span, texts + " are the same tokens, so nothing is corrupted",
            {"name prompts that differ in what the circuit is to carry"});
      return false;
    }
    if (pair.clean.tokens.size() == pair.corrupt.tokens.size()) return true;
    error(Code::unequal_lengths, span,
          texts + " have " + std::to_string(pair.clean.tokens.size()) + " and " +
              std::to_string(pair.corrupt.tokens.size()) +
              " tokens in this model, and a circuit is patched token by "
              "token",
          {"replace the word that is split by one of as many tokens as its counterpart"});
    return false;
  }

  /// The measure of a pair whose prompts say their own continuations.
  bool answers(BoundPair& pair, dsl::Span span) {
    for (const auto* prompt : {&pair.clean, &pair.corrupt}) {
      if (prompt->answers.empty()) {
        error(Code::no_answer, span, "\"" + prompt->text + "\" names no expected continuation",
              {"write it: \"" + prompt->text + "\" -> \" …\", or name the tokens: logit_diff(\" a\", \" b\")"});
        return false;
      }
      if (prompt->answers.front().size() != 1) {
        single_token(prompt->answer_texts.front(), span);
        return false;
      }
    }
    pair.raised = pair.clean.answers.front().front();
    pair.lowered = pair.corrupt.answers.front().front();
    if (pair.raised != pair.lowered) return true;
    error(Code::same_sides, span,
          "\"" + pair.clean.text + "\" and \"" + pair.corrupt.text + "\" expect the same continuation",
          {"corrupt what the continuation depends on, or measure probability(\" …\")"});
    return false;
  }

  std::int64_t edges_kept(const dsl::CircuitDecl& declaration) {
    const std::int64_t all = CircuitGraph(card_.config).edges();
    const auto& method = declaration.method;
    if (method.method == dsl::CircuitMethod::exact && all > method.budget) {
      error(Code::too_many_edges, method.span,
            card_.name + " has " + std::to_string(all) +
                " edges, and `exact`, which patches them one by one, has a "
                "budget of " +
                std::to_string(method.budget),
            {"use eap_ig(steps: 5), or give it the time: exact(budget: " + std::to_string(all) + ")"});
    }
    const auto& keep = declaration.keep;
    const double wanted = keep.share ? std::round(keep.amount * static_cast<double>(all)) : keep.amount;
    if (wanted >= 1 && wanted <= static_cast<double>(all)) return static_cast<std::int64_t>(wanted);
    error(Code::out_of_range, keep.span,
          "this would keep " + dsl::number_text(wanted) + " edges, and " + card_.name + " has " + std::to_string(all),
          {"keep fewer than all of them, and at least one: keep 1% edges"});
    return 0;
  }

  void metric(const dsl::Metric& metric) {
    std::visit(
        [&](const auto& node) {
          using Node = std::decay_t<decltype(node)>;
          if constexpr (std::is_same_v<Node, dsl::metric::Rank>) {
            single_token(node.text, metric.span);
          } else if constexpr (std::is_same_v<Node, dsl::metric::LogitDiff>) {
            single_token(node.a, metric.span);
            single_token(node.b, metric.span);
          } else if constexpr (std::is_same_v<Node, dsl::metric::Probability>) {
            const auto ids = bound_.tokenizer->encode(node.text);
            if (ids.empty()) error(Code::empty_prompt, metric.span, "the continuation has no tokens");
            each_measured([&](const BoundPrompt& prompt) { context(prompt.tokens.size() + ids.size(), metric.span); });
          } else if constexpr (std::is_same_v<Node, dsl::metric::Accuracy> ||
                               std::is_same_v<Node, dsl::metric::Specificity>) {
            const BoundPrompt* without = nullptr;
            each_measured([&](const BoundPrompt& prompt) {
              if (prompt.answers.empty() && without == nullptr) without = &prompt;
            });
            if (without != nullptr) {
              error(Code::no_answer, metric.span, "\"" + without->text + "\" names no expected continuation",
                    {"write it: \"" + without->text + "\" -> \" …\""});
            }
          } else if constexpr (std::is_same_v<Node, dsl::metric::Rate>) {
            each_measured([&](const BoundPrompt& prompt) {
              context(prompt.tokens.size() + static_cast<std::size_t>(node.tokens), metric.span);
            });
          } else if constexpr (std::is_same_v<Node, dsl::metric::Mean> || std::is_same_v<Node, dsl::metric::Max> ||
                               std::is_same_v<Node, dsl::metric::FiringRate>) {
            training(node.feature, metric.span, Code::measured_on_training);
          } else if constexpr (std::is_same_v<Node, dsl::metric::Cosine>) {
            angle(node, metric.span);
          } else if constexpr (std::is_same_v<Node, dsl::metric::LossRecovered>) {
            autoencoder(node.folder, node.span);
          } else if constexpr (std::is_same_v<Node, dsl::metric::Auroc>) {
            training(node.feature, metric.span, Code::auroc_on_training);
          } else if constexpr (std::is_same_v<Node, dsl::metric::Effect>) {
            if (const auto* sentence = std::get_if<dsl::Intervention>(&node.change)) intervention(*sentence);
            this->metric(*node.on);
          }
        },
        metric.node);
  }

  template <class Each>
  void each_measured(Each each) const {
    for (const BoundPrompts* set : sets_) std::for_each(set->begin(), set->end(), each);
  }

  /// The width of a feature's direction: of a latent its decoder row's.
  std::int64_t direction_width(dsl::FeatureId id) const {
    const auto* card = autoencoder_of(id);
    return card ? card->d_out : card_.site_width(bound_.feature_sites[id]);
  }

  void angle(const dsl::metric::Cosine& cosine, dsl::Span span) {
    const auto f = direction_width(cosine.f), g = direction_width(cosine.g);
    if (f == g) return;
    error(Code::width_mismatch, span,
          "the directions of " + quoted(bound_.feature_name(cosine.f)) + " and " +
              quoted(bound_.feature_name(cosine.g)) + " have " + std::to_string(f) + " and " + std::to_string(g) +
              " elements",
          {"only directions of one width make an angle"});
  }

  void training(dsl::FeatureId id, dsl::Span span, Code code) {
    const auto& feature = rules_.features[id];
    for (const dsl::PromptsId built : dsl::built_from(feature)) {
      std::set<std::vector<std::int64_t>> seen;
      for (const auto& prompt : bound_.prompts[built]) seen.insert(prompt.tokens);
      for (const dsl::PromptsId measured : written_sets_) {
        if (dsl::share_texts(rules_, built, measured)) return;  // `check` has said so
        const auto& prompts = bound_.prompts[measured];
        const auto known = [&](const BoundPrompt& prompt) { return seen.contains(prompt.tokens); };
        if (std::none_of(prompts.begin(), prompts.end(), known)) continue;
        diagnostics_.push_back(dsl::built_from_these(code, span, feature, rules_.prompts[measured]));
        return;
      }
    }
  }

  const dsl::RuleSet& rules_;
  const model::ModelCard& card_;
  const std::string& cache_directory_;
  std::int64_t facts_ = 0;
  std::set<std::string> refused_autoencoders_;
  using Texts = std::vector<std::string>;
  std::vector<Texts> written_;                // by PromptsId: before any chat template
  std::vector<dsl::PromptsId> written_sets_;  // that the expectation being bound is measured on …
  std::vector<const BoundPrompts*> sets_;     // … and those with what attacks make of them
  BoundRules bound_;
  std::vector<dsl::Diagnostic> diagnostics_;
};

}  // namespace

dsl::Outcome<BoundRules> bind(std::shared_ptr<const dsl::RuleSet> rules, const model::ModelCard& card,
                              std::shared_ptr<const model::Tokenizer> tokenizer, const std::string& cache_directory,
                              std::uint64_t seed) {
  return Binder(std::move(rules), card, std::move(tokenizer), cache_directory, seed).run();
}

}  // namespace proviso::runtime
