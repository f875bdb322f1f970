// bench_cuda: every kernel of the CUDA backend at the shapes of Llama 3 8B, as a fraction of what
// this device was measured to be able to do.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>

#include "tests/bench/cuda/cases.h"

int main(int argc, char** argv) {
  using namespace lorad::bench;
  CLI::App app{
      "Measures the device (read, copy, multiply), then every kernel of the CUDA backend, cold, "
      "and prints each as a fraction of its limit. A case with a wrong result is not timed and "
      "makes the exit code 1."};
  CaseOptions options;
  std::string json_path;
  bool smoke = false;
  app.add_option("--filter", options.filter, "Only cases whose \"group name\" contains this");
  app.add_option("--json", json_path, "Write the results to this file");
  app.add_flag("--smoke", smoke, "Tiny shapes, one run: checks the benchmark, measures nothing");
  app.get_option("--smoke")->envname("LORAD_BENCH_SMOKE");
  CLI11_PARSE(app, argc, argv);

  auto runtime = OpenBenchRuntime();
  if (runtime == nullptr) return 2;
  BenchDevice device(std::move(runtime));
  device.set_smoke(smoke);
  if (smoke) options.shape = kTiny;
  const Calibration calibration = Calibrate(device);
  Cases cases(device, options);
  AddGemmCases(cases);
  AddAdapterCases(cases);
  AddAttentionCases(cases);
  AddRowCases(cases);
  std::cout << device.facts().name << "\n" << ToTable(calibration, cases.results());
  if (!json_path.empty()) {
    std::ofstream(json_path) << ToJson(device.facts().name, calibration, cases.results());
  }
  const bool right =
      std::ranges::all_of(cases.results(), [](const CaseResult& r) { return r.wrong.empty(); });
  return right && !cases.results().empty() ? 0 : 1;
}
