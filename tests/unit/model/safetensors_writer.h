// For tests: makes safetensors files, right ones and (through the parts) wrong ones; and a folder
// that goes away.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lorad {

struct TestTensor {
  std::string name;
  std::string dtype = "F32";
  std::vector<int64_t> shape;
  std::string data;  // raw bytes
};

inline std::string FloatBytes(std::span<const float> values) {
  std::string bytes(values.size_bytes(), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// An F32 tensor, every value the same.
inline TestTensor FilledTensor(std::string name, std::vector<int64_t> shape, float value) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return {std::move(name), "F32", std::move(shape), FloatBytes(std::vector<float>(count, value))};
}

// Length, header and data as the format has them.
inline std::string SafetensorsBytes(std::string_view header, std::string_view data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>((static_cast<uint64_t>(header.size()) >> (8 * i)) & 0xff);
  }
  return bytes.append(header).append(data);
}

inline std::string SafetensorsBytes(const std::vector<TestTensor>& tensors,
                                    std::string_view metadata = "") {
  std::string header = "{";
  std::string data;
  if (!metadata.empty()) header += fmt::format("\"__metadata__\":{}", metadata);
  for (const TestTensor& tensor : tensors) {
    if (header.size() > 1) header += ",";
    std::string shape;
    for (const int64_t size : tensor.shape)
      shape += fmt::format("{}{}", shape.empty() ? "" : ",", size);
    header +=
        fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", tensor.name,
                    tensor.dtype, shape, data.size(), data.size() + tensor.data.size());
    data += tensor.data;
  }
  return SafetensorsBytes(header + "}", data);
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "lorad_test_XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path Write(std::string_view name, std::string_view content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace lorad
