// PEFT directories with one thing wrong, made from an adapter of the demo.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace lorad::integration {

struct RawTensor {
  std::string name;
  std::string dtype;
  std::vector<int> shape;
  std::string data;
};

std::vector<RawTensor> ReadTensors(const std::string& path);
void WriteTensors(const std::vector<RawTensor>& tensors, const std::string& path);

enum class Flaw {
  kNone,
  kGarbageWeights,  // no safetensors at all
  kHalfPair,        // a lora_A without its lora_B
  kWrongBase,       // made for a model of another width
  kNotANumber,      // one weight is NaN
  kNoWeights,       // adapter_model.bin instead
  kGarbageConfig,
};

// Writes the demo's adapter `demo` with that flaw to `directory`, which it makes.
void WriteFlawedAdapter(const std::string& demo, Flaw flaw, const std::string& directory);

}  // namespace lorad::integration
