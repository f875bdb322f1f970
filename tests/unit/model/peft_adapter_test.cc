#include "model/peft_adapter.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "memory/base/error_detail.h"
#include "model/adapter_keys.h"
#include "model/module_pattern.h"
#include "model/sites.h"
#include "tests/unit/model/safetensors_writer.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kConfigFile[] = "adapter_config.json";
constexpr char kWeightFile[] = "adapter_model.safetensors";

std::string Message(const absl::Status& status) { return std::string(status.message()); }

ModelConfig Model() {
  ModelConfig model;
  model.architecture = "LlamaForCausalLM";
  model.vocab_size = 20;
  model.hidden_size = 8;
  model.layers = 3;
  model.heads = 4;
  model.kv_heads = 2;
  model.head_dim = 2;
  model.ffn_size = 12;
  return model;
}

// The fields of an adapter_config.json; `more` may not repeat them.
std::string Config(std::string_view more = "", std::string_view targets = R"(["q_proj","v_proj"])",
                   std::string_view rank = "2", std::string_view alpha = "4") {
  return fmt::format(R"({{"peft_type":"LORA","r":{},"lora_alpha":{},"target_modules":{}{}{}}})",
                     rank, alpha, targets, more.empty() ? "" : ",", more);
}

std::string Key(int layer, std::string_view module, char half) {
  return fmt::format("base_model.model.model.layers.{}.{}.lora_{}.weight", layer, module, half);
}

// Both halves of one module.
std::vector<TestTensor> Pair(int layer, std::string_view module, int64_t in, int64_t out,
                             int64_t rank = 2, float value = 0.5f) {
  return {FilledTensor(Key(layer, module, 'A'), {rank, in}, value),
          FilledTensor(Key(layer, module, 'B'), {out, rank}, value)};
}

std::vector<TestTensor> operator+(std::vector<TestTensor> a, const std::vector<TestTensor>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<TestTensor> QPair(int64_t rank = 2) { return Pair(0, "self_attn.q_proj", 8, 8, rank); }

class PeftAdapterTest : public ::testing::Test {
 protected:
  absl::StatusOr<PeftAdapter> Load(std::string_view config, const std::vector<TestTensor>& tensors,
                                   const AdapterLimits& limits = {},
                                   AdapterCheck check = AdapterCheck::kWhole) {
    folder_.Write(kConfigFile, config);
    folder_.Write(kWeightFile, SafetensorsBytes(tensors, R"({"format":"pt"})"));
    return LoadPeftAdapter(folder_.path(), model_, limits, check);
  }

  // Expects a refusal with this reason and field.
  void Refused(std::string_view config, const std::vector<TestTensor>& tensors,
               std::string_view reason, std::string_view field, std::string_view text = "") {
    const absl::Status status = Load(config, tensors).status();
    ASSERT_FALSE(status.ok()) << config;
    const ErrorDetail detail = GetErrorDetail(status);
    EXPECT_EQ(detail.reason, reason) << status;
    EXPECT_EQ(detail.field, field) << status;
    EXPECT_THAT(Message(status), HasSubstr(std::string(field)));
    EXPECT_THAT(Message(status), HasSubstr(std::string(text)));
  }

  // The scales of the modules that load, by order of execution.
  std::vector<float> Scales(std::string_view config, const std::vector<TestTensor>& tensors) {
    const auto adapter = Load(config, tensors);
    EXPECT_TRUE(adapter.ok()) << adapter.status();
    std::vector<float> scales;
    if (!adapter.ok()) return scales;
    for (const auto& factors : adapter->factors()) scales.push_back(factors.scale);
    return scales;
  }

  TemporaryFolder folder_;
  ModelConfig model_ = Model();
};

TEST_F(PeftAdapterTest, GivesFactorsInTheOrderOfExecution) {
  const auto tensors = Pair(2, "mlp.down_proj", 12, 8) + Pair(0, "self_attn.v_proj", 8, 4) +
                       Pair(0, "self_attn.q_proj", 8, 8) + Pair(0, "self_attn.k_proj", 8, 4) +
                       Pair(1, "self_attn.o_proj", 8, 8) + Pair(1, "mlp.up_proj", 8, 12, 2, 3.0f) +
                       Pair(1, "mlp.gate_proj", 8, 12);
  auto loaded =
      Load(Config(R"("base_model_name_or_path":"acme/base")", R"("all-linear")"), tensors);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const PeftAdapter adapter = std::move(*loaded);
  const auto factors = adapter.factors();
  ASSERT_EQ(factors.size(), 7u);
  struct Place {
    uint32_t site, out_begin;
    int64_t in, out;
  };
  const Place expected[] = {{0, 0, 8, 8},  {0, 8, 8, 4},   {0, 12, 8, 4}, {5, 0, 8, 8},
                            {6, 0, 8, 12}, {6, 12, 8, 12}, {11, 0, 12, 8}};
  for (size_t i = 0; i < factors.size(); ++i) {
    EXPECT_EQ(factors[i].site, expected[i].site) << i;
    EXPECT_EQ(factors[i].out_begin, expected[i].out_begin) << i;
    EXPECT_EQ(factors[i].a.rows, 2) << i;
    EXPECT_EQ(factors[i].a.cols, expected[i].in) << i;
    EXPECT_EQ(factors[i].b.rows, expected[i].out) << i;
    EXPECT_EQ(factors[i].b.cols, 2) << i;
    EXPECT_EQ(factors[i].scale, 2.0f) << i;
  }
  float value = 0;
  std::memcpy(&value, factors[5].b.data, sizeof(value));
  EXPECT_EQ(value, 3.0f);

  const PeftAdapterFacts& facts = adapter.facts();
  EXPECT_EQ(facts.max_rank, 2);
  EXPECT_THAT(facts.ranks, ElementsAre(2));
  EXPECT_THAT(facts.target_modules, ElementsAre("down_proj", "gate_proj", "k_proj", "o_proj",
                                                "q_proj", "up_proj", "v_proj"));
  EXPECT_EQ(facts.base_model_name, "acme/base");
  uint64_t bytes = 0;
  for (const TestTensor& tensor : tensors) bytes += tensor.data.size();
  EXPECT_EQ(facts.parameter_bytes, bytes);
  EXPECT_TRUE(facts.unused_targets.empty());
}

// Every field that the newest PEFT writes, as it writes it.
TEST_F(PeftAdapterTest, AcceptsTheConfigThatPeftSaves) {
  const auto adapter = Load(
      R"({"alora_invocation_tokens":null,"alpha_pattern":{},"arrow_config":null,"auto_mapping":null,
          "base_model_name_or_path":null,"bias":"none","corda_config":null,
          "ensure_weight_tying":false,"eva_config":null,"exclude_modules":null,
          "fan_in_fan_out":false,"inference_mode":true,"init_lora_weights":true,"kasa_config":null,
          "layer_replication":null,"layers_pattern":null,"layers_to_transform":null,
          "loftq_config":{},"lora_alpha":8,"lora_bias":false,"lora_dropout":0.05,
          "lora_ga_config":null,"megatron_config":null,"megatron_core":"megatron.core",
          "modules_to_save":null,"monteclora_config":null,"peft_type":"LORA",
          "peft_version":"0.21.2","qalora_group_size":16,"r":2,"rank_pattern":{},"revision":null,
          "target_modules":["q_proj","o_proj"],"target_parameters":null,"task_type":"CAUSAL_LM",
          "trainable_token_indices":null,"use_bdlora":null,"use_dora":false,"use_qalora":false,
          "use_rslora":false,"velora_config":null})",
      QPair());
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_THAT(adapter->facts().unused_targets, ElementsAre("o_proj"));
}

// --- Scale ---

TEST_F(PeftAdapterTest, ScaleIsAlphaOverRankOrItsRoot) {
  EXPECT_THAT(Scales(Config("", R"(["q_proj"])", "2", "16"), QPair()), ElementsAre(8.0f));
  EXPECT_THAT(Scales(Config("", R"(["q_proj"])", "2", "0.5"), QPair()), ElementsAre(0.25f));
  EXPECT_THAT(Scales(Config(R"("use_rslora":true)", R"(["q_proj"])", "3", "7"), QPair(3)),
              ElementsAre(static_cast<float>(7.0 / std::sqrt(3.0))));
}

TEST_F(PeftAdapterTest, PatternsChooseRankAndAlpha) {
  const auto tensors = Pair(0, "self_attn.q_proj", 8, 8, 4) + Pair(1, "self_attn.q_proj", 8, 8, 2) +
                       Pair(1, "self_attn.v_proj", 8, 4, 8);
  // v_proj by its bare name, layer 0 by an expression; both scales follow the rank of the module.
  const std::string ranks = R"("rank_pattern":{"layers\\.[0]\\..*q_proj":4,"v_proj":8})";
  EXPECT_THAT(Scales(Config(ranks), tensors), ElementsAre(1.0f, 2.0f, 0.5f));
  const std::string alphas = R"(,"alpha_pattern":{"model.layers.1.self_attn.q_proj":6,"v_pro":9})";
  EXPECT_THAT(Scales(Config(ranks + alphas), tensors), ElementsAre(1.0f, 3.0f, 0.5f));
  const auto adapter = Load(Config(ranks), tensors);
  ASSERT_TRUE(adapter.ok());
  EXPECT_THAT(adapter->facts().ranks, ElementsAre(2, 4, 8));
  EXPECT_EQ(adapter->facts().max_rank, 8);
}

TEST_F(PeftAdapterTest, TheFirstPatternOfTheFileWins) {
  EXPECT_THAT(Scales(Config(R"("alpha_pattern":{"z|q_proj":10,"q_proj":20})"), QPair()),
              ElementsAre(5.0f));
  EXPECT_THAT(Scales(Config(R"("alpha_pattern":{"q_proj":20,"a|q_proj":10})"), QPair()),
              ElementsAre(10.0f));
}

// What re.match(rf"(.*\.)?({key})$", "model.layers.0.self_attn.q_proj") says of each key.
TEST_F(PeftAdapterTest, PatternKeysMatchAsPeftMatchesThem) {
  const auto matches = [&](std::string_view key) {
    return Scales(Config(fmt::format(R"("alpha_pattern":{{"{}":20}})", key)), QPair()) ==
           std::vector<float>{10.0f};
  };
  for (const std::string_view key :
       {"q_proj", "self_attn.q_proj", "model.layers.0.self_attn.q_proj", "^model.*q_proj", "q.proj",
        "[qk]_proj", "q_proj|k_proj", ".*", "layers.0..*", "(?:self_attn)\\\\.(?P<x>q)_proj",
        "(?i)Q_PROJ", "\\\\w+"}) {
    EXPECT_TRUE(matches(key)) << key;
  }
  for (const std::string_view key : {"proj", "_proj", "q_pro", "q_projx", "layers.1..*",
                                     "self_attn", "^q_proj", "Q_PROJ", "model.layers.0", "x|y"}) {
    EXPECT_FALSE(matches(key)) << key;
  }
}

// --- Which modules ---

TEST_F(PeftAdapterTest, TargetsBySuffixPatternOrAll) {
  for (const std::string_view targets :
       {R"(["q_proj"])", R"(["self_attn.q_proj"])", R"(["model.layers.0.self_attn.q_proj"])",
        R"("all-linear")", R"("ALL-LINEAR")", R"(".*\\.q_proj")", R"("model.*(q|v)_proj")"}) {
    const auto adapter = Load(Config("", targets), QPair());
    EXPECT_TRUE(adapter.ok()) << targets << adapter.status();
  }
  for (const std::string_view targets :
       {R"(["k_proj"])", R"(["proj"])", R"(["_proj"])", R"("q_proj")", R"(["lm_head"])"}) {
    Refused(Config("", targets), QPair(), "ADAPTER_UNMATCHED_TENSOR",
            Key(0, "self_attn.q_proj", 'A'), "leave this module out");
  }
}

TEST_F(PeftAdapterTest, ExclusionAndLayerChoiceAreHonoured) {
  const std::string field = Key(0, "self_attn.q_proj", 'A');
  for (const std::string_view more :
       {R"("exclude_modules":["q_proj"])", R"("exclude_modules":".*layers\\.0\\..*")",
        R"("layers_to_transform":[1,2])", R"("layers_to_transform":1)",
        R"("layers_to_transform":[0],"layers_pattern":"blocks")"}) {
    Refused(Config(more), QPair(), "ADAPTER_UNMATCHED_TENSOR", field);
  }
  for (const std::string_view more :
       {R"("exclude_modules":["v_proj"])", R"("exclude_modules":[])",
        R"("layers_to_transform":[0])", R"("layers_to_transform":0)", R"("layers_to_transform":[])",
        R"("layers_to_transform":[0],"layers_pattern":["blocks","layers"])",
        R"("layers_to_transform":[0],"layers_pattern":"layers")"}) {
    const auto adapter = Load(Config(more), QPair());
    EXPECT_TRUE(adapter.ok()) << more << adapter.status();
  }
}

TEST_F(PeftAdapterTest, LmHeadIsASiteOfItsOwnEvenIfTied) {
  model_.tie_embeddings = true;
  const std::vector<TestTensor> head = {
      FilledTensor("base_model.model.lm_head.lora_A.weight", {2, 8}, 1),
      FilledTensor("base_model.model.lm_head.lora_B.weight", {20, 2}, 1)};
  const auto adapter = Load(Config("", R"(["lm_head"])"), head);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  ASSERT_EQ(adapter->factors().size(), 1u);
  EXPECT_EQ(adapter->factors()[0].site, LmHeadSite(model_));
  EXPECT_EQ(adapter->factors()[0].b.rows, 20);
  Refused(Config("", R"("all-linear")"), head, "ADAPTER_UNMATCHED_TENSOR", head[0].name);
}

// --- Keys ---

TEST_F(PeftAdapterTest, AcceptsTheOtherSpellings) {
  for (const std::string_view form :
       {"base_model.model.{}.lora_{}.weight", "base_model.model.{}.lora_{}.default.weight",
        "base_model.model.{}.lora_{}.my-adapter_2.weight", "{}.lora_{}.weight",
        "{}.lora_{}.default.weight"}) {
    const auto name = [&](char half) {
      return fmt::format(fmt::runtime(form), "model.layers.1.mlp.up_proj", half);
    };
    const auto adapter = Load(Config("", R"(["up_proj"])"), {FilledTensor(name('A'), {2, 8}, 1),
                                                             FilledTensor(name('B'), {12, 2}, 1)});
    ASSERT_TRUE(adapter.ok()) << form << adapter.status();
    EXPECT_EQ(adapter->factors()[0].site, SiteIndex(1, LayerSite::kGateUp));
  }
}

TEST_F(PeftAdapterTest, RefusesTensorsThatItDoesNotUnderstand) {
  const std::string layer = "base_model.model.model.layers.0.";
  for (const std::string& name : std::vector<std::string>{
           "junk", layer + "self_attn.q_proj", layer + "self_attn.q_proj.lora_C.weight",
           layer + "self_attn.q_proj.lora_A", layer + "self_attn.q_proj.lora_A.bias",
           layer + "self_attn.q_proj.lora_A.a.b.weight", layer + "self_attn.q_proj.lora_A..weight",
           layer + "self_attn.qkv_proj.lora_A.weight", layer + "mlp.q_proj.lora_A.weight",
           layer + "self_attn.q_proj.x.lora_A.weight", layer + "input_layernorm.lora_A.weight",
           "base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight",
           "base_model.model.model.layers.-1.self_attn.q_proj.lora_A.weight",
           "base_model.model.model.layers..self_attn.q_proj.lora_A.weight",
           "base_model.model.model.layers.99999999999.self_attn.q_proj.lora_A.weight",
           "base_model.model.layers.0.self_attn.q_proj.lora_A.weight",
           "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight",
           "base_model.model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"}) {
    Refused(Config(), QPair() + std::vector{FilledTensor(name, {2, 8}, 1)},
            "ADAPTER_UNMATCHED_TENSOR", name, "matches no module");
  }
}

TEST_F(PeftAdapterTest, SaysWhatAForeignTensorIs) {
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj";
  const std::pair<std::string, std::string> foreign[] = {
      {"base_model.model.model.embed_tokens.lora_embedding_A", "embedding"},
      {"base_model.model.model.embed_tokens.weight", "embedding"},
      {q + ".lora_magnitude_vector", "DoRA"},
      {q + ".lora_B.bias", "LoRA bias"},
      {q + ".base_layer.bias", "base model"},
      {"base_model.model.lm_head.modules_to_save.weight", "saved whole"},
      {"base_model.model.lm_head.weight", "saved whole"}};
  for (const auto& [name, what] : foreign) {
    Refused(Config(), QPair() + std::vector{FilledTensor(name, {2, 8}, 1)},
            "ADAPTER_UNMATCHED_TENSOR", name, what);
  }
}

TEST_F(PeftAdapterTest, RefusesHalfPairsAndSecondSpellings) {
  const auto pair = QPair();
  Refused(Config(), {pair[0]}, "ADAPTER_HALF_PAIR", pair[0].name, "no matching lora_B");
  Refused(Config(), {pair[1]}, "ADAPTER_HALF_PAIR", pair[1].name, "no matching lora_A");
  const std::string bare = "model.layers.0.self_attn.q_proj.lora_A.weight";
  Refused(Config(), pair + std::vector{FilledTensor(bare, {2, 8}, 1)}, "ADAPTER_DUPLICATE_MODULE",
          bare, "second spelling of base_model.model");
  const std::string other = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.other.weight";
  Refused(Config(), pair + std::vector{FilledTensor(other, {2, 8}, 1)}, "ADAPTER_UNMATCHED_TENSOR",
          other, "adapter \"other\"");
  Refused(Config(), {}, "ADAPTER_EMPTY", kWeightFile);
}

// --- Shapes and values ---

TEST_F(PeftAdapterTest, WrongShapesNameBothAndTheLikelyCause) {
  const auto wrong = [&](int layer, std::string_view module, int64_t in, int64_t out,
                         std::string_view shapes, char half) {
    const auto tensors = Pair(layer, module, in, out);
    Refused(Config("", R"("all-linear")"), tensors, "ADAPTER_WRONG_BASE", Key(layer, module, half),
            shapes);
    EXPECT_EQ(Load(Config("", R"("all-linear")"), tensors).status().code(),
              absl::StatusCode::kFailedPrecondition);
  };
  wrong(0, "self_attn.q_proj", 16, 8, "has shape [2, 16], the base model needs [2, 8]", 'A');
  wrong(0, "self_attn.k_proj", 8, 8, "has shape [8, 2], the base model needs [4, 2]", 'B');
  wrong(0, "mlp.down_proj", 8, 12, "wrong base model?", 'A');
  wrong(3, "self_attn.q_proj", 8, 8, "the base model has 3 layers", 'A');
  Refused(Config(), {FilledTensor(Key(0, "self_attn.q_proj", 'A'), {16}, 1), QPair()[1]},
          "ADAPTER_WRONG_BASE", Key(0, "self_attn.q_proj", 'A'), "[16]");
}

TEST_F(PeftAdapterTest, RanksMustBeThoseOfTheConfig) {
  Refused(Config(), QPair(4), "ADAPTER_RANK_MISMATCH", Key(0, "self_attn.q_proj", 'A'),
          "gives model.layers.0.self_attn.q_proj rank 2");
  Refused(Config(R"("rank_pattern":{"q_proj":3})"), QPair(2), "ADAPTER_RANK_MISMATCH",
          Key(0, "self_attn.q_proj", 'A'));
  Refused(Config(), {QPair(2)[0], QPair(4)[1]}, "ADAPTER_RANK_MISMATCH",
          Key(0, "self_attn.q_proj", 'B'));
}

TEST_F(PeftAdapterTest, RefusesTypesThatAreNoWeights) {
  auto tensors = QPair();
  tensors[0].dtype = "I32";
  Refused(Config(), tensors, "ADAPTER_UNSUPPORTED_DTYPE", tensors[0].name, "I32");
}

TEST_F(PeftAdapterTest, RefusesValuesThatAreNotFinite) {
  const auto with = [](size_t half, float value) {
    auto tensors = QPair();
    std::memcpy(tensors[half].data.data() + tensors[half].data.size() - 4, &value, 4);
    return tensors;
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const size_t half : {size_t{0}, size_t{1}}) {
    for (const float value : {kNan, -kNan, kInfinity, -kInfinity}) {
      Refused(Config(), with(half, value), "ADAPTER_NON_FINITE", QPair()[half].name);
      EXPECT_TRUE(Load(Config(), with(half, value), {}, AdapterCheck::kStructure).ok());
    }
  }
  // The largest float rounds to infinity in bfloat16.
  Refused(Config(), with(0, std::numeric_limits<float>::max()), "ADAPTER_NON_FINITE",
          QPair()[0].name);
  EXPECT_TRUE(Load(Config(), with(0, 3e38f)).ok());
  // scale * B
  Refused(Config(), with(1, 3e38f), "ADAPTER_NON_FINITE", QPair()[1].name, "scale 2");
  EXPECT_TRUE(Load(Config(), with(1, -1.5e38f)).ok());
}

TEST(LargestMagnitude, OfEveryType) {
  const auto largest = [](kernels::DType dtype, std::vector<uint16_t> bits) {
    return LargestMagnitude({dtype, bits.data(), 1, static_cast<int64_t>(bits.size())});
  };
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(largest(kernels::DType::kF16, {0x3c00, 0xc000, 0x0001}), 2.0f);
  EXPECT_EQ(largest(kernels::DType::kF16, {0x0000, 0x8003}), 0x3p-24f);
  EXPECT_EQ(largest(kernels::DType::kF16, {0xfbff}), 65504.0f);
  EXPECT_EQ(largest(kernels::DType::kF16, {0x3c00, 0xfc00}), kInfinity);
  EXPECT_EQ(largest(kernels::DType::kF16, {0x7e00}), kInfinity);
  EXPECT_EQ(largest(kernels::DType::kBF16, {0x3f80, 0xc040}), 3.0f);
  EXPECT_EQ(largest(kernels::DType::kBF16, {0x7f80}), kInfinity);
  EXPECT_EQ(largest(kernels::DType::kBF16, {0x3f80, 0xffc0}), kInfinity);
}

// --- Files ---

TEST_F(PeftAdapterTest, MissingFilesPicklesAndLinks) {
  const auto detail = [&] {
    return GetErrorDetail(LoadPeftAdapter(folder_.path(), model_).status());
  };
  EXPECT_EQ(detail().reason, "ADAPTER_FILE_MISSING");
  EXPECT_EQ(detail().field, kConfigFile);
  folder_.Write(kConfigFile, Config());
  EXPECT_EQ(detail().reason, "ADAPTER_FILE_MISSING");
  EXPECT_EQ(detail().field, kWeightFile);
  folder_.Write("adapter_model.bin", "\x80\x02");
  EXPECT_EQ(detail().reason, "ADAPTER_PICKLE");
  EXPECT_THAT(Message(LoadPeftAdapter(folder_.path(), model_).status()), HasSubstr("pickle"));

  const TemporaryFolder outside;
  const auto target = outside.Write("secret", SafetensorsBytes(QPair()));
  std::filesystem::create_symlink(target, folder_.path() / kWeightFile);
  EXPECT_EQ(detail().reason, "ADAPTER_FILE_INVALID");
  EXPECT_EQ(detail().field, kWeightFile);
  std::filesystem::remove(folder_.path() / kWeightFile);
  folder_.Write(kWeightFile, "not safetensors");
  EXPECT_EQ(detail().reason, "SAFETENSORS_INVALID");
  std::filesystem::remove(folder_.path() / kConfigFile);
  std::filesystem::create_symlink(outside.Write("c", Config()), folder_.path() / kConfigFile);
  EXPECT_EQ(detail().reason, "ADAPTER_FILE_INVALID");
}

TEST_F(PeftAdapterTest, LimitsAreExact) {
  ASSERT_TRUE(Load(Config(), QPair()).ok());
  const uint64_t config_bytes = std::filesystem::file_size(folder_.path() / kConfigFile);
  const uint64_t weight_bytes = std::filesystem::file_size(folder_.path() / kWeightFile);
  const AdapterLimits exact{2, weight_bytes, config_bytes};
  EXPECT_TRUE(Load(Config(), QPair(), exact).ok());
  const auto reason = [&](const AdapterLimits& limits) {
    return GetErrorDetail(Load(Config(), QPair(), limits).status()).reason;
  };
  EXPECT_EQ(reason({2, weight_bytes - 1, config_bytes}), "ADAPTER_FILE_INVALID");
  EXPECT_EQ(reason({2, weight_bytes, config_bytes - 1}), "ADAPTER_FILE_INVALID");
  EXPECT_EQ(reason({1, weight_bytes, config_bytes}), "INVALID_FIELD");
}

// --- Config fields ---

TEST_F(PeftAdapterTest, RefusesFieldsThatItDoesNotServe) {
  const std::pair<std::string, std::string> fields[] = {
      {"use_dora", "true"},
      {"lora_bias", "true"},
      {"bias", R"("all")"},
      {"bias", R"("lora_only")"},
      {"modules_to_save", R"(["lm_head"])"},
      {"trainable_token_indices", "[1]"},
      {"trainable_token_indices", R"({"embed_tokens":[1]})"},
      {"layer_replication", "[[0,2]]"},
      {"init_lora_weights", R"("pissa")"},
      {"init_lora_weights", R"("pissa_niter_16")"},
      {"init_lora_weights", R"("corda")"},
      {"init_lora_weights", R"("olora")"},
      {"init_lora_weights", R"("OLoRA")"},
      {"init_lora_weights", R"("loftq")"},
      {"init_lora_weights", R"("unheard_of")"},
      {"alora_invocation_tokens", "[1,2]"},
      {"target_parameters", R"(["mlp.experts"])"},
      {"use_qalora", "true"},
      {"use_bdlora", R"({"nblocks":2})"},
      {"arrow_config", R"({"top_k":1})"},
      {"kasa_config", R"({"beta":1})"},
      {"monteclora_config", R"({"num_samples":1})"},
      {"ensure_weight_tying", "true"},
      {"task_type", R"("SEQ_CLS")"},
      {"a_field_of_next_year", "1"}};
  for (const auto& [name, value] : fields) {
    Refused(Config(fmt::format(R"("{}":{})", name, value)), QPair(), "ADAPTER_UNSUPPORTED_FIELD",
            name);
    EXPECT_EQ(Load(Config(fmt::format(R"("{}":{})", name, value)), QPair()).status().code(),
              absl::StatusCode::kUnimplemented);
  }
  for (const std::string_view off : {"null", "false", "0", "[]", "{}", "\"\""}) {
    EXPECT_TRUE(Load(Config(fmt::format(R"("a_field_of_next_year":{})", off)), QPair()).ok())
        << off;
  }
  for (const std::string_view init :
       {"true", "false", "\"gaussian\"", "\"eva\"", "\"orthogonal\""}) {
    EXPECT_TRUE(Load(Config(fmt::format(R"("init_lora_weights":{})", init)), QPair()).ok()) << init;
  }
  EXPECT_TRUE(Load(Config(R"("fan_in_fan_out":true)"), QPair()).ok());
  Refused(R"({"peft_type":"IA3"})", QPair(), "ADAPTER_UNSUPPORTED_FIELD", "peft_type");
  Refused("{}", QPair(), "ADAPTER_UNSUPPORTED_FIELD", "peft_type");
}

TEST_F(PeftAdapterTest, RefusesValuesOutOfBounds) {
  const auto invalid = [&](const std::string& config, std::string_view field) {
    Refused(config, QPair(), "INVALID_FIELD", field);
  };
  const std::string q = R"(["q_proj"])";
  for (const std::string rank :
       {"0", "-1", "257", "2.0", "\"2\"", "null", "99999999999999999999"}) {
    invalid(Config("", q, rank), "r");
  }
  for (const std::string alpha : {"1e7", "-1e7", "\"4\"", "null", "[]"}) {
    invalid(Config("", q, "2", alpha), "lora_alpha");
  }
  for (const std::string targets : {"null", "[]", "\"\"", "5", "[1]", "{}"}) {
    invalid(Config("", targets), "target_modules");
  }
  invalid(Config("", q, "2", "1e999"), kConfigFile);
  invalid(Config(R"("r":2)"), kConfigFile);
  invalid("", kConfigFile);
  invalid("[]", "file");
  invalid(Config(R"("use_rslora":"yes")"), "use_rslora");
  invalid(Config(R"("rank_pattern":[])"), "rank_pattern");
  invalid(Config(R"("rank_pattern":{"q":0})"), "rank_pattern.q");
  invalid(Config(R"("rank_pattern":{"q":257})"), "rank_pattern.q");
  invalid(Config(R"("rank_pattern":{"q":1.5})"), "rank_pattern.q");
  invalid(Config(R"("alpha_pattern":{"q":"x"})"), "alpha_pattern.q");
  invalid(Config(R"("alpha_pattern":{"q":1e300})"), "alpha_pattern.q");
  invalid(Config(R"("alpha_pattern":{"(":1})"), "alpha_pattern.(");
  invalid(Config(R"("exclude_modules":"[")"), "exclude_modules");
  invalid(Config(R"("layers_to_transform":["x"])"), "layers_to_transform");
  invalid(Config(R"("layers_to_transform":-1)"), "layers_to_transform");
  invalid(Config(R"("layers_to_transform":[0])", R"("all-linear")"), "layers_to_transform");
  invalid(Config(R"("layers_to_transform":[0],"layers_pattern":"(")"), "layers_pattern");
  invalid(Config("", R"("(a+")"), "target_modules");
}

// --- Patterns that mean harm ---

TEST_F(PeftAdapterTest, PatternsThatNeverEndAreAnError) {
  const std::string evil = R"((.*)*(.*)*(.*)*(.*)*(.*)*[0-9]\\1)";
  Refused(Config("", fmt::format("\"{}\"", evil)), QPair(), "INVALID_FIELD", "target_modules");
  Refused(Config(fmt::format(R"("rank_pattern":{{"{}":2}})", evil)), QPair(), "INVALID_FIELD",
          R"(rank_pattern.(.*)*(.*)*(.*)*(.*)*(.*)*[0-9]\1)");
}

TEST(ModulePatternTest, MatchesWholeNames) {
  const std::string name = "model.layers.17.self_attn.o_proj";
  EXPECT_TRUE(*ModulePattern::Compile(R"(model\.layers\.\d+\.(self_attn|mlp)\.(q|o)_proj)")
                   ->FullMatch(name));
  EXPECT_FALSE(*ModulePattern::Compile("model")->FullMatch(name));
  EXPECT_FALSE(*ModulePattern::Compile("o_proj")->FullMatch(name));
  EXPECT_TRUE(*ModulePattern::Compile("model|model.*")->FullMatch(name));
  std::string group;
  EXPECT_TRUE(*ModulePattern::Compile(R"(.*?\.(?P<idx>\d+)\..*)")->FullMatch(name, "idx", &group));
  EXPECT_EQ(group, "17");
  // What a popular training library writes.
  EXPECT_TRUE(*ModulePattern::Compile(
                   R"((?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|)"
                   R"(ffn|dense).*?(?:q_proj|k_proj|v_proj|o_proj|gate_proj).*?)|)"
                   R"((?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|)"
                   R"(feed_forward|ffn|dense)\.(?:(?:q_proj|k_proj|v_proj|o_proj))))")
                   ->FullMatch(name));
}

TEST(ModulePatternTest, RefusesWhatIsTooBigOrTooDeep) {
  EXPECT_FALSE(ModulePattern::Compile(std::string(ModulePattern::kMaxPatternBytes + 1, 'a')).ok());
  EXPECT_FALSE(ModulePattern::Compile(std::string(100, '(') + std::string(100, ')')).ok());
  EXPECT_FALSE(ModulePattern::Compile("(*UCP)a").ok());
  EXPECT_FALSE(ModulePattern::Compile("\\C").ok());
  EXPECT_FALSE(ModulePattern::Compile("(?R)*a(").ok());
}

TEST(AdapterKeys, TakeNamesApart) {
  const auto key =
      ParseAdapterKey("base_model.model.model.layers.12.mlp.gate_proj.lora_B.default.weight");
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_EQ(key->module, "model.layers.12.mlp.gate_proj");
  EXPECT_EQ(key->layer, 12);
  EXPECT_EQ(key->projection, "gate_proj");
  EXPECT_EQ(key->half, LowRankHalf::kB);
  EXPECT_EQ(key->adapter_name, "default");
  EXPECT_TRUE(key->has_prefix);
  EXPECT_FALSE(ParseAdapterKey("lm_head.lora_A.weight")->has_prefix);
}

}  // namespace
}  // namespace lorad
