#include "engine/image_store.h"

#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "support/picture_identity.h"
#include "unit/io/temp_folder.h"

namespace fovea {
namespace {

using testing_support::identity_of;

namespace fs = std::filesystem;

constexpr std::size_t kRoomy = 1 << 20;

// Embeddings [4, 3] of bf16 that tell which picture they belong to.
HostEmbeddings embeddings_of(int number) {
  HostEmbeddings embeddings{DType::kBf16, {4, 3}, std::vector<std::byte>(24)};
  for (std::size_t i = 0; i < embeddings.bytes.size(); ++i) {
    embeddings.bytes[i] = static_cast<std::byte>(static_cast<std::size_t>(number) * 7 + i);
  }
  return embeddings;
}

constexpr std::size_t kFileBytes = 24 + kImageFileOverhead;

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  return files;
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

class ImageStoreTest : public testing::Test {
 protected:
  ImageStore open(std::size_t max_bytes = kRoomy, std::string_view fingerprint = "model a") {
    auto store = ImageStore::open(folder(), fingerprint, max_bytes);
    EXPECT_TRUE(store.ok()) << store.error().message;
    return std::move(store).value();
  }
  fs::path folder() const { return temp_.path() / "store"; }
  static void save(const ImageStore& store, int number) {
    const Status saved = store.save(identity_of(number), embeddings_of(number));
    ASSERT_TRUE(saved.ok()) << saved.error().message;
  }
  static bool holds(const ImageStore& store, int number) {
    const auto loaded = store.load(identity_of(number));
    EXPECT_TRUE(!loaded || loaded->bytes == embeddings_of(number).bytes);
    return loaded.has_value();
  }
  // Sets when a picture was last used, in seconds before now: clocks are too coarse for tests.
  void age(const ImageStore& store, int number, int seconds) {
    const auto before = files_in(folder());
    save(store, number);
    for (const fs::path& path : files_in(folder())) {
      if (std::find(before.begin(), before.end(), path) != before.end()) continue;
      fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::seconds(seconds));
    }
  }

  TempFolder temp_;
};

TEST_F(ImageStoreTest, WhatWasSavedOutlivesTheProcess) {
  save(open(), 1);
  const auto loaded = open().load(identity_of(1));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->dtype, DType::kBf16);
  EXPECT_EQ(loaded->shape, (Shape{4, 3}));
  EXPECT_EQ(loaded->bytes, embeddings_of(1).bytes);
  EXPECT_FALSE(open().load(identity_of(2)).has_value());
}

TEST_F(ImageStoreTest, FullPrecisionIsKeptAsItIs) {
  const HostEmbeddings embeddings{DType::kF32, {1, 2}, std::vector<std::byte>(8, std::byte{5})};
  ASSERT_TRUE(open().save(identity_of(1), embeddings).ok());
  const auto loaded = open().load(identity_of(1));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->dtype, DType::kF32);
  EXPECT_EQ(loaded->bytes, embeddings.bytes);
}

TEST_F(ImageStoreTest, ModelsDoNotSeeEachOthersPictures) {
  const ImageStore a = open(kRoomy, "model a"), b = open(kRoomy, "model b");
  save(a, 1);
  EXPECT_FALSE(b.load(identity_of(1)).has_value());
  EXPECT_TRUE(holds(a, 1));
}

TEST_F(ImageStoreTest, AFileOfAnotherModelUnderThisNameIsAMissAndRemoved) {
  save(open(kRoomy, "model b"), 1);
  const std::string of_b = read_file(files_in(folder()).front());
  fs::remove(files_in(folder()).front());
  const ImageStore a = open();
  save(a, 1);
  write_file(files_in(folder()).front(), of_b);
  EXPECT_FALSE(holds(a, 1));
  EXPECT_TRUE(files_in(folder()).empty());
}

TEST_F(ImageStoreTest, OneWrongBitAnywhereIsAMissAndTheFileGoes) {
  const ImageStore store = open();
  save(store, 1);
  const fs::path path = files_in(folder()).front();
  const std::string good = read_file(path);
  ASSERT_EQ(good.size(), kFileBytes);
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    write_file(path, bad);
    EXPECT_FALSE(store.load(identity_of(1)).has_value()) << "byte " << i;
    EXPECT_FALSE(fs::exists(path)) << "byte " << i;
  }
  write_file(path, good);
  EXPECT_TRUE(holds(store, 1));
}

TEST_F(ImageStoreTest, FilesOfAnotherLengthAreMissesAndGo) {
  const ImageStore store = open();
  save(store, 1);
  const fs::path path = files_in(folder()).front();
  const std::string good = read_file(path);
  for (std::size_t length = 0; length < good.size(); ++length) {
    write_file(path, good.substr(0, length));
    EXPECT_FALSE(store.load(identity_of(1)).has_value()) << length << " bytes";
    EXPECT_FALSE(fs::exists(path)) << length << " bytes";
  }
  write_file(path, good + "x");
  EXPECT_FALSE(store.load(identity_of(1)).has_value());
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(ImageStoreTest, AFileLargerThanTheStoreIsNotRead) {
  const ImageStore store = open(1000);
  save(store, 1);
  const fs::path path = files_in(folder()).front();
  fs::resize_file(path, std::uintmax_t{1} << 40);  // a hole: takes no space
  EXPECT_FALSE(store.load(identity_of(1)).has_value());
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(ImageStoreTest, OddThingsUnderAPicturesNameAreMisses) {
  const ImageStore store = open();
  save(store, 1);
  const fs::path path = files_in(folder()).front();
  fs::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(store.load(identity_of(1)).has_value());
  fs::create_directory(path);
  EXPECT_FALSE(store.load(identity_of(1)).has_value());
  fs::remove(path);
  write_file(temp_.path() / "elsewhere", "precious");
  fs::create_symlink(temp_.path() / "elsewhere", path);
  EXPECT_FALSE(store.load(identity_of(1)).has_value());
  EXPECT_EQ(read_file(temp_.path() / "elsewhere"), "precious");
}

TEST_F(ImageStoreTest, WhatADeadProcessLeftIsClearedAndWhatALiveOneWritesIsNot) {
  open();
  write_file(folder() / "unfinished-dead", "half");
  write_file(folder() / "unfinished-live", "half");
  write_file(folder() / "notes.txt", "not ours");
  const int live = ::open((folder() / "unfinished-live").c_str(), O_RDONLY);
  ASSERT_EQ(::flock(live, LOCK_EX), 0);
  open();
  EXPECT_FALSE(fs::exists(folder() / "unfinished-dead"));
  EXPECT_TRUE(fs::exists(folder() / "unfinished-live"));
  EXPECT_TRUE(fs::exists(folder() / "notes.txt"));
  ::close(live);
}

TEST_F(ImageStoreTest, TheLeastRecentlyUsedGoesFirst) {
  const ImageStore store = open(3 * kFileBytes);
  age(store, 1, 300);
  age(store, 2, 200);
  age(store, 3, 100);
  EXPECT_TRUE(holds(store, 1));  // 2 is now the oldest
  save(store, 4);
  EXPECT_FALSE(holds(store, 2));
  EXPECT_TRUE(holds(store, 1));
  EXPECT_TRUE(holds(store, 3));
  EXPECT_TRUE(holds(store, 4));
}

TEST_F(ImageStoreTest, ASmallerBoundHoldsFromTheStart) {
  const ImageStore store = open();
  for (int number = 0; number < 10; ++number) age(store, number, 100 - number);
  open(2 * kFileBytes);
  EXPECT_EQ(files_in(folder()).size(), 2u);
  EXPECT_TRUE(holds(store, 8));
  EXPECT_TRUE(holds(store, 9));
}

TEST_F(ImageStoreTest, APictureLargerThanTheStoreIsRefusedAndRemovesNothing) {
  const ImageStore store = open(2 * kFileBytes);
  save(store, 1);
  const Status saved =
      store.save(identity_of(2), {DType::kF32, {100, 1}, std::vector<std::byte>(400)});
  ASSERT_FALSE(saved.ok());
  EXPECT_EQ(saved.error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(holds(store, 1));
}

TEST_F(ImageStoreTest, EmbeddingsThatDoNotFitTheirShapeAreRefused) {
  const ImageStore store = open();
  EXPECT_FALSE(store.save(identity_of(1), {DType::kF32, {2, 2}, std::vector<std::byte>(15)}).ok());
  EXPECT_FALSE(store.save(identity_of(1), {DType::kF32, {4}, std::vector<std::byte>(16)}).ok());
  EXPECT_FALSE(store.save(identity_of(1), {DType::kI32, {2, 2}, std::vector<std::byte>(16)}).ok());
  EXPECT_TRUE(files_in(folder()).empty());
}

TEST_F(ImageStoreTest, OnlyTheOwnerMayRead) {
  save(open(), 1);
  const auto others = fs::perms::group_all | fs::perms::others_all;
  EXPECT_EQ(fs::status(folder()).permissions() & others, fs::perms::none);
  EXPECT_EQ(fs::status(files_in(folder()).front()).permissions() & others, fs::perms::none);
}

TEST_F(ImageStoreTest, OpeningSaysWhichFolderAndWhy) {
  const fs::path file = temp_.write("file", "x");
  const auto not_a_folder = ImageStore::open(file, "m", kRoomy);
  ASSERT_FALSE(not_a_folder.ok());
  EXPECT_NE(not_a_folder.error().message.find(file.string()), std::string::npos);
  EXPECT_EQ(not_a_folder.error().code, ErrorCode::kInvalidArgument);
  const auto inside_a_file = ImageStore::open(file / "inside", "m", kRoomy);
  ASSERT_FALSE(inside_a_file.ok());
  EXPECT_NE(inside_a_file.error().message.find((file / "inside").string()), std::string::npos);
  EXPECT_NE(inside_a_file.error().message.find("Not a directory"), std::string::npos);
}

// Runs `body` in a child process, as an ordinary user when this one is root, and gives what it
// returns.
template <class Body>
int run_in_child(bool as_user, Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (as_user && ::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(100);
    ::_exit(body());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 101;
}

TEST_F(ImageStoreTest, AReadOnlyFolderIsRefusedAtOnce) {
  open();
  fs::permissions(folder(), fs::perms(0555));
  EXPECT_EQ(run_in_child(true,
                         [&] {
                           const auto store = ImageStore::open(folder(), "m", kRoomy);
                           if (store.ok()) return 1;
                           const std::string& message = store.error().message;
                           if (message.find(folder().string()) == std::string::npos) return 2;
                           return message.find("Permission denied") == std::string::npos ? 3 : 0;
                         }),
            0);
}

TEST_F(ImageStoreTest, AFolderThatBecomesReadOnlyStillAnswers) {
  const ImageStore store = open();
  save(store, 1);
  fs::permissions(folder(), fs::perms(0555));
  fs::permissions(files_in(folder()).front(), fs::perms(0444));
  EXPECT_EQ(run_in_child(true,
                         [&] {
                           if (!store.load(identity_of(1))) return 1;
                           const Status saved = store.save(identity_of(2), embeddings_of(2));
                           if (saved.ok()) return 2;
                           return saved.error().code == ErrorCode::kIo ? 0 : 3;
                         }),
            0);
  fs::permissions(folder(), fs::perms(0755));
}

TEST_F(ImageStoreTest, AFolderThatVanishesIsNoError) {
  const ImageStore store = open();
  save(store, 1);
  fs::remove_all(folder());
  EXPECT_FALSE(store.load(identity_of(1)).has_value());
  EXPECT_FALSE(store.save(identity_of(1), embeddings_of(1)).ok());
}

// Loads and saves at random; what is loaded must be right. 0 when it was.
int churn(const ImageStore& store, unsigned seed) {
  unsigned state = seed;
  for (int i = 0; i < 150; ++i) {
    state = state * 1664525u + 1013904223u;
    const int number = static_cast<int>(state >> 16) % 24;
    if (const auto loaded = store.load(identity_of(number))) {
      if (loaded->bytes != embeddings_of(number).bytes) return 1;
    } else if (!store.save(identity_of(number), embeddings_of(number)).ok()) {
      return 2;
    }
  }
  return 0;
}

TEST_F(ImageStoreTest, SeveralProcessesShareAFolder) {
  std::vector<pid_t> children;
  for (unsigned seed = 0; seed < 3; ++seed) {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto store = ImageStore::open(folder(), "model a", 8 * kFileBytes);
      ::_exit(store.ok() ? churn(*store, seed) : 3);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
  EXPECT_LE(files_in(folder()).size(), 8u + 2u);  // each may exceed the bound by one
  open(8 * kFileBytes);
  EXPECT_LE(files_in(folder()).size(), 8u);
}

// Who opens a folder removes what nobody writes any more, and nothing that has just been begun.
TEST_F(ImageStoreTest, AFolderMayBeOpenedWhileOthersSave) {
  const ImageStore store = open(8 * kFileBytes);
  std::vector<pid_t> children;
  for (int i = 0; i < 2; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (;;) static_cast<void>(ImageStore::open(folder(), "model a", 8 * kFileBytes));
    }
    children.push_back(child);
  }
  for (int i = 0; i < 400; ++i) {
    const Status saved = store.save(identity_of(i % 4), embeddings_of(i % 4));
    EXPECT_TRUE(saved.ok()) << i << ": " << saved.error().message;
  }
  for (const pid_t child : children) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
}

TEST_F(ImageStoreTest, SeveralThreadsShareAStore) {
  const ImageStore store = open(8 * kFileBytes);
  std::vector<int> results(3);
  {
    std::vector<std::jthread> threads;
    for (unsigned seed = 0; seed < 3; ++seed) {
      threads.emplace_back([&, seed] { results[seed] = churn(store, seed); });
    }
  }
  EXPECT_EQ(results, std::vector<int>(3, 0));
}

// A process that is killed while it writes: whatever it left, what is found afterwards is right.
TEST_F(ImageStoreTest, AProcessThatIsKilledLeavesNothingWrong) {
  const ImageStore store = open(8 * kFileBytes);
  for (int round = 0; round < 10; ++round) {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      for (int number = 0;; ++number) {
        static_cast<void>(store.save(identity_of(number % 24), embeddings_of(number % 24)).ok());
        if (number == round) static_cast<void>(!::write(ready[1], "x", 1));
      }
    }
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
    for (int number = 0; number < 24; ++number) holds(store, number);
  }
  open(8 * kFileBytes);
  for (const fs::path& path : files_in(folder())) EXPECT_EQ(path.extension(), ".embeddings");
}

}  // namespace
}  // namespace fovea
