#include "tests/integration/broken_adapters.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

constexpr char kConfig[] = "/adapter_config.json";
constexpr char kWeights[] = "/adapter_model.safetensors";

void Spoil(Flaw flaw, std::vector<RawTensor>* tensors) {
  RawTensor& first = tensors->at(0);
  ASSERT_NE(first.name.find("lora_A"), std::string::npos) << first.name;
  switch (flaw) {
    case Flaw::kHalfPair:
      ASSERT_NE(tensors->at(1).name.find("lora_B"), std::string::npos) << tensors->at(1).name;
      tensors->erase(tensors->begin() + 1);
      break;
    case Flaw::kWrongBase:
      first.shape[1] *= 2;
      first.data += first.data;
      break;
    case Flaw::kNotANumber:
      ASSERT_TRUE(first.dtype == "BF16" || first.dtype == "F32") << first.dtype;
      if (first.dtype == "BF16") {
        first.data.replace(0, 2, "\xc0\x7f");
      } else {
        first.data.replace(0, 4, std::string("\0\0\xc0\x7f", 4));
      }
      break;
    default:
      break;
  }
}

}  // namespace

std::vector<RawTensor> ReadTensors(const std::string& path) {
  const std::string file = ReadWholeFile(path);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  const auto header = nlohmann::ordered_json::parse(file.substr(8, header_bytes));
  std::vector<RawTensor> tensors;
  for (const auto& [name, fields] : header.items()) {
    if (name == "__metadata__") continue;
    const auto offsets = fields["data_offsets"].get<std::vector<size_t>>();
    tensors.push_back(
        {.name = name,
         .dtype = fields["dtype"],
         .shape = fields["shape"].get<std::vector<int>>(),
         .data = file.substr(8 + header_bytes + offsets[0], offsets[1] - offsets[0])});
  }
  return tensors;
}

void WriteTensors(const std::vector<RawTensor>& tensors, const std::string& path) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::string data;
  for (const RawTensor& tensor : tensors) {
    const size_t begin = data.size();
    data += tensor.data;
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = text.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  out << text << data;
}

void WriteFlawedAdapter(const std::string& demo, Flaw flaw, const std::string& directory) {
  namespace fs = std::filesystem;
  const std::string from = DemoAdapterPath(demo);
  fs::create_directories(directory);
  fs::copy_file(from + kConfig, directory + kConfig);
  if (flaw == Flaw::kGarbageConfig) std::ofstream(directory + kConfig) << "{\"peft_type\": ";
  if (flaw == Flaw::kNoWeights) {
    std::ofstream(directory + "/adapter_model.bin") << "a pickle";
    return;
  }
  if (flaw == Flaw::kGarbageWeights) {
    std::ofstream(directory + kWeights) << std::string(1000, 'x');
    return;
  }
  std::vector<RawTensor> tensors = ReadTensors(from + kWeights);
  Spoil(flaw, &tensors);
  WriteTensors(tensors, directory + kWeights);
}

}  // namespace lorad::integration
