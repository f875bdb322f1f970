#include "tests/integration/daemon_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

namespace lorad::integration {
namespace {

using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(60);
constexpr auto kPoll = std::chrono::milliseconds(5);
constexpr size_t kShownLogBytes = 8000;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string(".") : std::string(value);
}

std::string OptionalEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

// The fields of the line that says that it serves; null if there is none yet.
nlohmann::json FindServing(const std::string& log) {
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    auto fields = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (fields.is_object() && fields.value("event", "") == "serving") return fields;
  }
  return nullptr;
}

std::string HttpGet(int port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request =
        fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
      char buffer[4096];
      for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
        answer.append(buffer, static_cast<size_t>(n));
      }
    }
  }
  close(fd);
  return answer;
}

void Redirect(const std::string& path, int to) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || dup2(fd, to) < 0) _exit(126);
  close(fd);
}

}  // namespace

std::string SourcePath(const std::string& relative) {
  return Environment("LORAD_SOURCE_DIR") + "/" + relative;
}

std::string DaemonProgram() {
  const std::string other = OptionalEnvironment("LORAD_TEST_PROGRAM");
  return other.empty() ? Environment("LORAD_BINARY_DIR") + "/server/lorad" : other;
}

std::string LoractlProgram() { return Environment("LORAD_BINARY_DIR") + "/client/loractl"; }

TempDirectory::TempDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "lorad-test-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  path_ = std::filesystem::canonical(pattern).string();
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string ReadWholeFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

pid_t Spawn(const std::vector<std::string>& command, const std::string& stdout_path,
            const std::string& stderr_path) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t process = fork();
  if (process != 0) return process;
  Redirect("/dev/null", STDIN_FILENO);
  Redirect(stdout_path, STDOUT_FILENO);
  Redirect(stderr_path, STDERR_FILENO);
  execv(argv[0], argv.data());
  _exit(127);
}

Finished WaitForEnd(pid_t process, std::chrono::seconds patience) {
  Finished result;
  int status = 0;
  const auto end = steady_clock::now() + patience;
  while (waitpid(process, &status, WNOHANG) == 0) {
    if (steady_clock::now() > end) {
      ADD_FAILURE() << "process " << process << " does not end";
      kill(process, SIGKILL);
      waitpid(process, &status, 0);
      break;
    }
    std::this_thread::sleep_for(kPoll);
  }
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

Finished RunProgram(const std::vector<std::string>& command, std::chrono::seconds patience) {
  const TempDirectory directory;
  Finished result = WaitForEnd(Spawn(command, directory / "out", directory / "err"), patience);
  result.out = ReadWholeFile(directory / "out");
  result.err = ReadWholeFile(directory / "err");
  return result;
}

DaemonProcess::~DaemonProcess() {
  if (process_ > 0) Kill();
  if (!testing::Test::HasFailure()) return;
  const std::string text = log();
  const size_t from = text.size() > kShownLogBytes ? text.size() - kShownLogBytes : 0;
  std::cerr << "---- log of the daemon ----\n" << text.substr(from) << "----\n";
}

std::vector<std::string> DaemonProcess::Command() const {
  return {DaemonProgram(),    "--model",      SourcePath("demo/model"),
          "--state-dir",      state_dir(),    "--listen",
          "127.0.0.1:0",      "--log-format", "json",
          "--metrics-listen", "127.0.0.1:0",  "--validate-books",
          "--pool-bytes",     "64MiB"};
}

bool DaemonProcess::Start(const std::vector<std::string>& options) {
  std::vector<std::string> command = Command();
  for (size_t i = 0; i < options.size(); ++i) {
    if (options[i] == "--pool-bytes") command.resize(command.size() - 2);  // it may come once only
  }
  command.insert(command.end(), options.begin(), options.end());
  std::istringstream more(OptionalEnvironment("LORAD_TEST_OPTIONS"));
  command.insert(command.end(), std::istream_iterator<std::string>(more), {});
  std::filesystem::remove(directory_ / "log");  // the last one says that it serves, too
  process_ = Spawn(command, directory_ / "out", directory_ / "log");
  nlohmann::json serving;
  const auto end = steady_clock::now() + kPatience;
  while ((serving = FindServing(log())).is_null()) {
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(process_), &info, WEXITED | WNOHANG | WNOWAIT);
    if (info.si_pid != 0 || steady_clock::now() > end) {
      ADD_FAILURE() << "the daemon does not serve";
      return false;
    }
    std::this_thread::sleep_for(kPoll);
  }
  address_ = fmt::format("127.0.0.1:{}", serving["grpc_port"].get<int>());
  metrics_port_ = serving["metrics_port"].get<int>();
  return true;
}

bool DaemonProcess::StartWithDemo(std::vector<std::string> options) {
  const std::string adapters = SourcePath("demo/adapters");
  for (const auto& entry : std::filesystem::directory_iterator(adapters)) {
    const std::string name = entry.path().filename().string();
    options.push_back("--adapter");
    options.push_back(fmt::format("{}={}", name, entry.path().string()));
  }
  return Start(options);
}

void DaemonProcess::Signal(int signal) const {
  if (process_ > 0) kill(process_, signal);
}

Finished DaemonProcess::Wait() {
  Finished result = WaitForEnd(process_, kPatience);
  process_ = -1;
  return result;
}

Finished DaemonProcess::Terminate() {
  Signal(SIGTERM);
  return Wait();
}

Finished DaemonProcess::Kill() {
  Signal(SIGKILL);
  return Wait();
}

std::string DaemonProcess::MetricsText() const {
  const std::string answer = HttpGet(metrics_port_, "/metrics");
  const size_t body = answer.find("\r\n\r\n");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer.substr(0, 100);
  return body == std::string::npos ? std::string() : answer.substr(body + 4);
}

std::map<std::string, double> DaemonProcess::Metrics() const {
  std::map<std::string, double> values;
  std::istringstream lines(MetricsText());
  for (std::string line; std::getline(lines, line);) {
    const size_t space = line.rfind(' ');
    if (line.empty() || line[0] == '#' || space == std::string::npos) continue;
    values[line.substr(0, space)] = std::strtod(line.c_str() + space + 1, nullptr);
  }
  return values;
}

bool Eventually(const std::function<bool()>& condition) {
  const auto end = steady_clock::now() + kPatience;
  while (!condition()) {
    if (steady_clock::now() > end) return false;
    std::this_thread::sleep_for(kPoll);
  }
  return true;
}

}  // namespace lorad::integration
