// What Admin.GetModel answers: constant facts of model, backend and limits.
#pragma once

#include <lorad/v1/admin.pb.h>

#include <chrono>
#include <string>

#include "model/model_config.h"
#include "server/config.h"

namespace lorad {

struct ModelFacts {
  const Config& config;
  const ModelConfig& model;
  std::string backend;      // Backend::name()
  size_t weight_bytes = 0;  // of all ranks
  int64_t parameters = 0;
  int max_model_len = 0;
  uint64_t max_pinned_pages = 0;
  std::chrono::system_clock::time_point start;
};

v1::Model DescribeModel(const ModelFacts& facts);

}  // namespace lorad
