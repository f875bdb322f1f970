// Runs loractl in this process against a fake server.
#pragma once

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "client/loractl/session.h"
#include "tests/unit/client/fake_server.h"

namespace lorad::loractl {

struct Outcome {
  int code;
  std::string out, err;
};

class LoractlTest : public ::testing::Test {
 protected:
  Outcome Run(std::vector<std::string> args, const std::string& input = "") {
    args.insert(args.begin(), {"loractl", "--address", server_.address()});
    std::vector<const char*> argv;
    for (const std::string& arg : args) argv.push_back(arg.c_str());
    std::istringstream in(input);
    std::ostringstream out, err;
    const int code =
        RunLoractl(static_cast<int>(argv.size()), argv.data(), in, out, err, /*interactive=*/false);
    return {code, out.str(), err.str()};
  }

  FakeServer server_;
};

}  // namespace lorad::loractl
