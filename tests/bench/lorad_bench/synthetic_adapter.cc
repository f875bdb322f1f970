#include "tests/bench/lorad_bench/synthetic_adapter.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

namespace lorad::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Shape {
  int in = 0, out = 0;
  const char* block = "";
};

// The linear layer of that name; in == 0: the model has none.
Shape ShapeOf(const v1::Model& m, const std::string& module) {
  const int q = m.heads() * m.head_dim();
  const int kv = m.kv_heads() * m.head_dim();
  if (module == "q_proj") return {m.hidden_size(), q, "self_attn"};
  if (module == "k_proj" || module == "v_proj") return {m.hidden_size(), kv, "self_attn"};
  if (module == "o_proj") return {q, m.hidden_size(), "self_attn"};
  if (module == "gate_proj" || module == "up_proj") return {m.hidden_size(), m.ffn_size(), "mlp"};
  if (module == "down_proj") return {m.ffn_size(), m.hidden_size(), "mlp"};
  return {};
}

struct Tensor {
  std::string name;
  int rows = 0, cols = 0;
  float scale = 0;
};

// Random bf16 numbers of either sign whose size is between scale / 2 and 2 scale.
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(seed * 2 + 1) {}

  void Fill(size_t count, float scale, std::vector<uint16_t>* out) {
    int exponent = 0;
    std::frexp(scale, &exponent);
    const auto biased = static_cast<uint16_t>(std::clamp(exponent + 126, 1, 254) << 7);
    out->resize(count);
    for (uint16_t& value : *out) {
      value = static_cast<uint16_t>((Next() & 0x807F) | biased);
    }
  }

 private:
  uint64_t Next() {  // splitmix64
    uint64_t z = (state_ += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

std::vector<Tensor> Tensors(const v1::Model& model, const SyntheticAdapter& adapter,
                            const std::vector<std::string>& modules) {
  std::vector<Tensor> tensors;
  for (int layer = 0; layer < model.layers(); ++layer) {
    for (const std::string& module : modules) {
      const Shape shape = ShapeOf(model, module);
      const std::string base =
          fmt::format("base_model.model.model.layers.{}.{}.{}", layer, shape.block, module);
      const auto in = static_cast<float>(shape.in);
      const auto rank = static_cast<float>(adapter.rank);
      tensors.push_back({base + ".lora_A.weight", adapter.rank, shape.in, 1 / std::sqrt(in)});
      tensors.push_back(
          {base + ".lora_B.weight", shape.out, adapter.rank, 0.01F / std::sqrt(rank)});
    }
  }
  return tensors;
}

absl::Status WriteSafetensors(const std::vector<Tensor>& tensors, uint64_t seed,
                              const std::string& path) {
  Json header = Json::object();
  header["__metadata__"] = {{"format", "pt"}};
  uint64_t offset = 0;
  for (const Tensor& t : tensors) {
    const uint64_t bytes =
        uint64_t{2} * static_cast<uint64_t>(t.rows) * static_cast<uint64_t>(t.cols);
    header[t.name] = {
        {"dtype", "BF16"}, {"shape", {t.rows, t.cols}}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::ofstream out(path, std::ios::binary);
  const uint64_t size = text.size();
  out.write(reinterpret_cast<const char*>(&size), sizeof(size));  // little-endian, as this machine
  out << text;
  Noise noise(seed);
  std::vector<uint16_t> values;
  for (const Tensor& t : tensors) {
    noise.Fill(static_cast<size_t>(t.rows) * static_cast<size_t>(t.cols), t.scale, &values);
    out.write(reinterpret_cast<const char*>(values.data()),
              static_cast<std::streamsize>(values.size() * sizeof(uint16_t)));
  }
  out.close();
  return out ? absl::OkStatus() : absl::DataLossError(fmt::format("cannot write {}", path));
}

// A directory that goes away with its content.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lorad-bench-XXXXXX").string();
    if (mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }  // empty: it could not be made

 private:
  std::string path_;
};

}  // namespace

absl::Status WritePeftDirectory(const v1::Model& model, const SyntheticAdapter& adapter,
                                const std::string& directory) {
  std::vector<std::string> modules = adapter.modules;
  if (modules.empty()) {
    modules.assign(model.adaptable_modules().begin(), model.adaptable_modules().end());
    std::erase_if(modules, [&](const std::string& m) { return ShapeOf(model, m).in == 0; });
  }
  for (const std::string& module : modules) {
    if (ShapeOf(model, module).in > 0) continue;
    return absl::InvalidArgumentError(fmt::format("the model has no module {}", module));
  }
  if (modules.empty()) return absl::FailedPreconditionError("the model names no adaptable module");
  const Json config = {{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"base_model_name_or_path", model.name()},
                       {"r", adapter.rank},
                       {"lora_alpha", adapter.rank},
                       {"lora_dropout", 0.0},
                       {"bias", "none"},
                       {"target_modules", modules},
                       {"inference_mode", true}};
  std::ofstream out(directory + "/adapter_config.json");
  out << config.dump(2) << "\n";
  out.close();
  if (!out) return absl::DataLossError(fmt::format("cannot write to {}", directory));
  return WriteSafetensors(Tensors(model, adapter, modules), adapter.seed,
                          directory + "/adapter_model.safetensors");
}

namespace {

// Uploads "PREFIX-i" for every i of `missing` that is congruent to `part` modulo `parts`.
absl::Status UploadPart(Client* client, const v1::Model& model, const std::string& prefix,
                        const std::vector<int>& ranks, const std::vector<int>& missing, size_t part,
                        size_t parts) {
  const ScratchDirectory scratch;
  if (scratch.path().empty()) return absl::InternalError("cannot make a temporary directory");
  for (size_t at = part; at < missing.size(); at += parts) {
    const auto i = static_cast<size_t>(missing[at]);
    const SyntheticAdapter adapter{
        .rank = ranks[i % ranks.size()], .seed = static_cast<uint64_t>(i) + 1, .modules = {}};
    if (const auto status = WritePeftDirectory(model, adapter, scratch.path()); !status.ok()) {
      return status;
    }
    const auto uploaded = client->UploadAdapter({.adapter_id = fmt::format("{}-{}", prefix, i),
                                                 .directory = scratch.path(),
                                                 .replace = true,
                                                 .preload = false},
                                                nullptr);
    if (!uploaded.ok()) return uploaded.status();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> EnsureAdapters(
    Client* client, const v1::Model& model, const std::string& prefix, int count,
    const std::vector<int>& ranks, const std::function<void(int missing)>& on_missing,
    size_t at_a_time) {
  if (ranks.empty()) return absl::InvalidArgumentError("--ranks: none given");
  const auto listed = client->ListAdapters();
  if (!listed.ok()) return listed.status();
  std::map<std::string, int> known;
  for (const v1::Adapter& adapter : *listed) known[adapter.name()] = adapter.rank();
  std::vector<std::string> names;
  std::vector<int> missing;
  for (int i = 0; i < count; ++i) {
    names.push_back(fmt::format("{}-{}", prefix, i));
    const auto found = known.find("adapters/" + names.back());
    const int rank = ranks[static_cast<size_t>(i) % ranks.size()];
    if (found == known.end() || found->second != rank) missing.push_back(i);
  }
  if (missing.empty()) return names;
  on_missing(static_cast<int>(missing.size()));
  std::vector<absl::Status> results(at_a_time);
  std::vector<std::thread> threads;
  for (size_t part = 0; part < at_a_time; ++part) {
    threads.emplace_back([&, part] {
      results[part] = UploadPart(client, model, prefix, ranks, missing, part, at_a_time);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : results) {
    if (!status.ok()) return status;
  }
  return names;
}

}  // namespace lorad::bench
