// lorad: parse, build, serve until a signal, drain.
#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <ctime>

#include "server/config.h"
#include "server/daemon.h"
#include "server/log.h"

namespace {

constexpr int kExitStartFailed = 2;
constexpr int kExitDeviceFailed = 70;

// Signals are waited for by this thread alone, so no handler ever runs in the middle of anything.
sigset_t BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return set;
}

}  // namespace

int main(int argc, char** argv) {
  const auto parsed = lorad::ParseCommandLine(argc, argv);
  if (const auto* exit = std::get_if<lorad::ExitNow>(&parsed)) {
    std::fputs(exit->text.c_str(), exit->code == 0 ? stdout : stderr);
    return exit->code;
  }
  const auto& config = std::get<lorad::Config>(parsed);
  const sigset_t signals = BlockSignals();
  lorad::StartLog(config.log_level, config.log_format);

  auto daemon = lorad::Daemon::Start(config);
  if (!daemon.ok()) {
    lorad::Log(lorad::LogLevel::kError, "start failed",
               {{"error", std::string(daemon.status().message())}});
    lorad::StopLog();
    return kExitStartFailed;
  }
  const timespec poll{.tv_sec = 0, .tv_nsec = 200'000'000};
  int signal = -1;
  while (signal < 0 && (*daemon)->healthy()) signal = sigtimedwait(&signals, nullptr, &poll);
  const bool failed = !(*daemon)->healthy();
  if (!failed) lorad::Log(lorad::LogLevel::kInfo, "draining", {{"signal", signal}});
  (*daemon)->Drain();
  daemon->reset();
  lorad::Log(lorad::LogLevel::kInfo, "stopped");
  lorad::StopLog();
  return failed ? kExitDeviceFailed : 0;
}
