// DaemonProcess: a real lorad in a process of its own, on the demo model, with its own state
// directory and free ports. What it logs is kept, and shown if the test fails. RunProgram: any
// other program, to its end.
//
// One thread; the programs come from LORAD_BINARY_DIR (the daemon from LORAD_TEST_PROGRAM, if that
// is set), the demo from LORAD_SOURCE_DIR. Every daemon
// that is started gets the words of LORAD_TEST_OPTIONS after its other options, so that the same
// tests run on another backend (tests/gpu).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace lorad::integration {

std::string SourcePath(const std::string& relative);
std::string DaemonProgram();
std::string LoractlProgram();

// A directory that goes away with its content.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string ReadWholeFile(const std::string& path);

// Starts a program with its output and errors in the two files. Its process id.
pid_t Spawn(const std::vector<std::string>& command, const std::string& stdout_path,
            const std::string& stderr_path);

struct Finished {
  int code = -1;    // exit status; -1: ended by a signal, or not at all
  int signal = 0;   // that ended it
  std::string out;  // of RunProgram only
  std::string err;
};

// Waits for the end of a process; ends it with SIGKILL if that takes longer than `patience`.
Finished WaitForEnd(pid_t process, std::chrono::seconds patience);
Finished RunProgram(const std::vector<std::string>& command,
                    std::chrono::seconds patience = std::chrono::seconds(60));

class DaemonProcess {
 public:
  DaemonProcess() = default;
  ~DaemonProcess();  // SIGKILL if it still runs
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

  // The command line that Start runs, without `options`.
  std::vector<std::string> Command() const;
  // Starts it and waits until it serves; false, and a test failure, if it does not. The state
  // directory is the same each time, the log starts anew.
  bool Start(const std::vector<std::string>& options = {});
  // As Start, with all adapters of the demo.
  bool StartWithDemo(std::vector<std::string> options = {});

  void Signal(int signal) const;
  Finished Wait();       // for its end
  Finished Terminate();  // SIGTERM, then Wait
  Finished Kill();       // SIGKILL, then Wait

  const std::string& address() const { return address_; }
  std::string state_dir() const { return directory_ / "state"; }
  std::string log() const { return ReadWholeFile(directory_ / "log"); }

  // /metrics as text, and as a map from a series as it is written ('name{label="x"}') to its value.
  std::string MetricsText() const;
  std::map<std::string, double> Metrics() const;

 private:
  const TempDirectory directory_;
  pid_t process_ = -1;
  std::string address_;
  int metrics_port_ = 0;
};

// Polls `condition` until it holds, a minute at most. Whether it did.
bool Eventually(const std::function<bool()>& condition);

}  // namespace lorad::integration
