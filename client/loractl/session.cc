#include "client/loractl/session.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "client/error.h"

namespace lorad::loractl {

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kOk;
    case absl::StatusCode::kUnavailable:
      return kUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return kDeadline;
    case absl::StatusCode::kResourceExhausted:
      return kOverloaded;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:  // an etag that is not the present one
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return kRefused;
    default:
      return kFailed;
  }
}

Client& Session::client() {
  if (!client_) {
    client_ = std::make_unique<Client>(ClientOptions{.address = address, .tenant = tenant});
  }
  return *client_;
}

CallOptions Session::call() const {
  if (timeout_s <= 0) return {};
  return {.timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1000))};
}

ExitCode Session::Fail(const absl::Status& status) {
  terminal.err() << fmt::format("{} {}\n", terminal.Paint(Color::kRed, "error:"),
                                DescribeError(status));
  if (status.code() == absl::StatusCode::kUnavailable) {
    terminal.err() << fmt::format(
        "  (server: {}; choose another with --address or LORAD_ADDRESS)\n", address);
  }
  return ExitCodeOf(status);
}

ExitCode Session::Usage(const std::string& problem) {
  terminal.err() << fmt::format("{} {}\n", terminal.Paint(Color::kRed, "error:"), problem);
  return kUsage;
}

absl::StatusOr<std::string> Session::ReadPrompt(const std::vector<std::string>& words,
                                                const std::string& file) {
  if (!words.empty()) {
    std::string text = words[0];
    for (size_t i = 1; i < words.size(); ++i) text += " " + words[i];
    if (text != "-") return text;
  }
  if (file.empty() || file == "-") {
    return std::string(std::istreambuf_iterator<char>(*in), std::istreambuf_iterator<char>());
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return absl::NotFoundError(fmt::format("cannot read {}", file));
  return std::string(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
}

}  // namespace lorad::loractl
