// The power goes, at every disk operation of a script. A kill leaves all that was done; a power cut
// leaves what was synced, and of the rest anything: here none of it, or for each directory and file
// by chance. What was acknowledged must be there all the same.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <random>

#include "memory/adapter_store.h"
#include "memory/base/check.h"
#include "tests/unit/memory/store_fixture.h"
#include "tests/unit/memory/store_script.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

// What of the directory `root` is on the disk and not only in the system's memory.
class SyncedTree {
 public:
  explicit SyncedTree(fs::path root) : root_(std::move(root)) {}

  // To be called before each operation of the store.
  void Note(std::string_view operation, const fs::path& path) {
    if (operation == "sync") NoteFile(path);
    if (operation == "sync_directory" && path != root_.parent_path()) NoteDirectory(path);
    if (operation == "sync_filesystem") NoteAll(root_);
  }

  // Makes `to` what may be left after a power cut now: what was synced, and if there is `random`,
  // of some directories and files what was not.
  void Leave(const fs::path& to, std::mt19937* random) const {
    std::map<ino_t, fs::path> now;
    now[StatOf(root_).st_ino] = root_;
    for (const auto& entry : fs::recursive_directory_iterator(root_)) {
      now[StatOf(entry.path()).st_ino] = entry.path();
    }
    std::map<ino_t, fs::path> left;
    LeaveDirectory(StatOf(root_).st_ino, to, now, random, &left);
  }

 private:
  using Names = std::map<std::string, struct stat>;

  static struct stat StatOf(const fs::path& path) {
    struct stat info {};
    LORAD_CHECK(::lstat(path.c_str(), &info) == 0);
    return info;
  }
  static Names NamesOf(const fs::path& directory) {
    Names names;
    for (const std::string& name : NamesIn(directory)) names[name] = StatOf(directory / name);
    return names;
  }
  void NoteDirectory(const fs::path& path) { directories_[Hold(path)] = NamesOf(path); }
  void NoteFile(const fs::path& path) { files_[Hold(path)] = ReadFile(path); }
  // Its inode, which no other file gets from here on: on a disk, too, a file's inode is used again
  // only when the file's removal is durable.
  ino_t Hold(const fs::path& path) {
    const ino_t inode = StatOf(path).st_ino;
    if (!held_.contains(inode)) held_[inode] = UniqueFd(::open(path.c_str(), O_PATH | O_CLOEXEC));
    return inode;
  }
  void NoteAll(const fs::path& directory) {
    NoteDirectory(directory);
    for (const auto& [name, info] : NamesOf(directory)) {
      if (S_ISDIR(info.st_mode)) {
        NoteAll(directory / name);
      } else {
        NoteFile(directory / name);
      }
    }
  }

  void LeaveDirectory(ino_t inode, const fs::path& to, const std::map<ino_t, fs::path>& now,
                      std::mt19937* random, std::map<ino_t, fs::path>* left) const {
    fs::create_directory(to);
    fs::permissions(to, fs::perms::owner_all);
    Names names;
    if (const auto synced = directories_.find(inode); synced != directories_.end()) {
      names = synced->second;
    }
    const auto path = now.find(inode);
    if (path != now.end() && random != nullptr && (*random)() % 2 == 0) {
      names = NamesOf(path->second);
    }
    for (const auto& [name, info] : names) {
      if (S_ISDIR(info.st_mode)) {
        LeaveDirectory(info.st_ino, to / name, now, random, left);
      } else if (const auto other = left->find(info.st_ino); other != left->end()) {
        fs::create_hard_link(other->second, to / name);
      } else {
        (*left)[info.st_ino] = to / name;
        LeaveFile(info.st_ino, to / name, now, random);
      }
    }
  }
  void LeaveFile(ino_t inode, const fs::path& to, const std::map<ino_t, fs::path>& now,
                 std::mt19937* random) const {
    const auto synced = files_.find(inode);
    std::string bytes = synced == files_.end() ? "" : synced->second;
    const auto path = now.find(inode);
    if (synced == files_.end() && random != nullptr && path != now.end()) {
      bytes = ReadFile(path->second);
      bytes.resize((*random)() % (bytes.size() + 1));
    }
    WriteFile(to, bytes);
  }

  const fs::path root_;
  std::map<ino_t, Names> directories_;  // as they were synced last
  std::map<ino_t, std::string> files_;
  std::map<ino_t, UniqueFd> held_;
};

class StorePowerTest : public StoreTest {
 protected:
  // Runs `script`, and at each of its operations looks at what a power cut would leave. Returns how
  // many there were.
  int CutAtEveryOperation(const Script& script, bool can_link = true) {
    SyncedTree tree(root_);
    KnownAdapters known;
    std::mt19937 random(5);
    int operation = 0;
    AdapterStore& store = Open([&](std::string_view name, const fs::path& path) {
      if (store_ != nullptr && !HasFailure()) {  // not while it is opened
        SCOPED_TRACE(fmt::format("cut before operation {}, {} {}", operation, name,
                                 path.lexically_relative(root_).string()));
        CheckWhatIsLeft(tree, known, nullptr);
        for (int chance = 0; chance < 2; ++chance) CheckWhatIsLeft(tree, known, &random);
        ++operation;
      }
      tree.Note(name, path);
      return name == "link" && !can_link ? EMLINK : 0;
    });
    script(
        &store, [&](const std::string& line) { Read(line, &known); },
        [&](const auto& change) { EXPECT_EQ(change(), absl::OkStatus()); });
    CheckWhatIsLeft(tree, known, nullptr);
    return operation;
  }

 private:
  void CheckWhatIsLeft(const SyncedTree& tree, KnownAdapters known, std::mt19937* random) {
    const fs::path left = directory_ / "left";
    fs::remove_all(left);
    tree.Leave(left, random);
    const auto store = AdapterStore::Open(left, TestOptions());
    ASSERT_EQ(store.status(), absl::OkStatus());
    EXPECT_EQ((*store)->recovery().quarantined, std::vector<std::string>());
    lorad::ExpectBooksMatchDisk(**store, left);
    ExpectKnown(**store, &known);
  }
};

TEST_F(StorePowerTest, CutAtEveryOperationOfVersionsThatComeAndGo) {
  EXPECT_GT(CutAtEveryOperation(VersionsComeAndGo), 120);
}

TEST_F(StorePowerTest, CutAtEveryOperationWhereFilesAreCopiedAndNotLinked) {
  EXPECT_GT(CutAtEveryOperation(VersionsComeAndGo, /*can_link=*/false), 120);
}

TEST_F(StorePowerTest, CutAtEveryOperationOfSettingsAndOfANameThatIsUsedAgain) {
  EXPECT_GT(CutAtEveryOperation(SettingsChangeAndANameIsUsedAgain), 100);
}

}  // namespace
}  // namespace lorad
