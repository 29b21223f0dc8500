#include "batch_command.h"

#include <boost/json.hpp>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <map>
#include <mutex>
#include <sstream>

#include "support/fake_engine.h"
#include "support/scratch_folder.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::Not;

// `fovea batch` with a fake engine: a folder of pictures in, files out.
class Batch : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::fake_engine() = {};
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing_support::scratch_folder() / (std::string("fovea_batch_") + test->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "model");
    fs::create_directories(folder_ / "in");
    for (const char* name : {"a.jpg", "b.jpg", "c.jpg"}) write(std::string("in/") + name, name);
  }
  void TearDown() override {
    testing::fake_engine() = {};
    fs::remove_all(folder_);
  }

  std::string at(const std::string& name) const { return folder_ / name; }
  void write(const std::string& name, const std::string& text) { std::ofstream(at(name)) << text; }
  std::string read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(at(name)).rdbuf();
    return text.str();
  }

  int run_args(std::vector<std::string> args) {
    args.insert(args.begin(), "batch");
    args.insert(args.end(), {"--out", at("r.jsonl"), "--model", at("model")});
    out_.str("");
    err_.str("");
    testing::fake_engine().requests.clear();
    return run(args, {.in = in_, .out = out_, .err = err_, .err_is_terminal = is_terminal_});
  }
  int detect(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {at("in"), "--skill", "detect", "--text", "car"});
    return run_args(std::move(more));
  }
  int caption(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {at("in"), "--skill", "caption"});
    return run_args(std::move(more));
  }

  // The lines by file name, and by text where there are several.
  std::multimap<std::string, json::value> lines() const {
    std::multimap<std::string, json::value> lines;
    std::istringstream text(read("r.jsonl"));
    for (std::string line; std::getline(text, line);) {
      json::value value = json::parse(line);
      const std::string path(value.at("path").as_string());
      lines.emplace(fs::path(path).filename(), std::move(value));
    }
    return lines;
  }
  json::value line_of(const std::string& name) const {
    const auto all = lines();
    const auto found = all.find(name);
    if (found != all.end()) return found->second;
    ADD_FAILURE() << "no line about " << name;
    return {};
  }
  static std::size_t num_asked() { return testing::fake_engine().requests.size(); }

  // The engine answers pictures that hold this text with an error.
  static void break_picture(const std::string& content, Error error) {
    testing::fake_engine().on_submit = [content, error](const Request& request,
                                                        Callbacks callbacks) {
      callbacks.on_done(content_of(request) == content ? Result<Response>(error)
                                                       : testing::fake_engine().response);
      return std::uint64_t{1};
    };
  }
  static std::string content_of(const Request& request) {
    const auto& bytes = *request.picture.value().file();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  fs::path folder_;
  std::istringstream in_;
  std::ostringstream out_;
  std::ostringstream err_;
  bool is_terminal_ = false;
};

TEST_F(Batch, WritesALineForEachPicture) {
  testing::fake_engine().response = Response{.boxes = {{.x_max = 0.5, .confidence = 1}}};

  EXPECT_EQ(detect(), kExitOk) << err_.str();

  EXPECT_EQ(lines().size(), 3U);
  const json::value line = line_of("b.jpg");
  EXPECT_EQ(line.at("skill").as_string(), "detect");
  EXPECT_EQ(line.at("text").as_string(), "car");
  EXPECT_EQ(line.at("objects").at(0).at("x_max").as_double(), 0.5);
  EXPECT_EQ(out_.str(), "");
  EXPECT_THAT(err_.str(), HasSubstr("3 pictures: 3 answered; "));
  EXPECT_EQ(testing::fake_engine().created.at(0).max_sequences, 16);
}

TEST_F(Batch, GoesOnWhereItStopped) {
  EXPECT_EQ(detect(), kExitOk);
  const std::string first = read("r.jsonl");
  write("in/d.jpg", "d.jpg");

  EXPECT_EQ(detect(), kExitOk);

  EXPECT_EQ(num_asked(), 1U);
  EXPECT_EQ(lines().size(), 4U);
  EXPECT_EQ(read("r.jsonl").substr(0, first.size()), first);
  EXPECT_THAT(err_.str(), HasSubstr("4 pictures: 1 answered, 3 before"));
}

TEST_F(Batch, ARunWithNothingToAskLoadsNoModel) {
  detect();
  testing::fake_engine().created.clear();

  EXPECT_EQ(detect({"--csv", at("r.csv")}), kExitOk);

  EXPECT_TRUE(testing::fake_engine().created.empty());
  EXPECT_THAT(read("r.csv"), HasSubstr("a.jpg,car,,,,,,\n"));
}

TEST_F(Batch, ASecondTextIsAskedAlone) {
  detect();

  EXPECT_EQ(detect({"--text", "dog"}), kExitOk);

  EXPECT_EQ(num_asked(), 3U);
  for (const Request& request : testing::fake_engine().requests) {
    EXPECT_EQ(std::get<DetectRequest>(request.skill).object, "dog");
  }
}

TEST_F(Batch, AnotherQuestionIsRefused) {
  detect();
  const std::string before = read("r.jsonl");

  EXPECT_EQ(caption(), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("another question, detect \"car\""));
  EXPECT_EQ(detect({"--seed", "3"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("other options"));
  EXPECT_EQ(read("r.jsonl"), before);

  EXPECT_EQ(caption({"--overwrite"}), kExitOk);
  EXPECT_EQ(lines().count("a.jpg"), 1U);
}

TEST_F(Batch, OneBadPictureDoesNotStopTheRest) {
  break_picture("b.jpg", Error{ErrorCode::kInvalidArgument, "not a picture"});

  EXPECT_EQ(detect(), kExitFailed);

  EXPECT_EQ(lines().size(), 3U);
  const json::value bad = line_of("b.jpg");
  EXPECT_EQ(bad.at("error").at("message").as_string(), "not a picture");
  EXPECT_EQ(bad.at("error").at("type").as_string(), "invalid_argument");
  EXPECT_THAT(err_.str(), HasSubstr("fovea: " + at("in/b.jpg") + ": not a picture\n"));
  EXPECT_THAT(err_.str(), HasSubstr("2 answered, 1 failed"));

  testing::fake_engine().on_submit = nullptr;
  EXPECT_EQ(detect(), kExitOk) << "and is asked about again";
  EXPECT_EQ(num_asked(), 1U);
  EXPECT_EQ(lines().size(), 3U);
}

TEST_F(Batch, AMissingFileOfAListIsABadPicture) {
  write("list", at("in/a.jpg") + "\n" + at("in/none.jpg") + "\n");

  EXPECT_EQ(run_args({"@" + at("list"), "--skill", "caption"}), kExitFailed);

  EXPECT_EQ(line_of("none.jpg").at("error").at("type").as_string(), "not_found");
  EXPECT_TRUE(line_of("a.jpg").as_object().contains("caption"));
}

TEST_F(Batch, SeveralRequestsAreInTheEngineAtOnce) {
  for (int i = 0; i < 20; ++i) write("in/p" + std::to_string(i) + ".jpg", "x");
  // Nobody is answered until six are there.
  std::mutex mutex;
  std::vector<Callbacks> waiting;
  bool open = false;
  testing::fake_engine().on_submit = [&](const Request&, Callbacks callbacks) {
    std::vector<Callbacks> ready;
    {
      const std::lock_guard lock(mutex);
      waiting.push_back(std::move(callbacks));
      open = open || waiting.size() == 6;
      if (open) ready.swap(waiting);
    }
    for (const Callbacks& each : ready) each.on_done(Response{});
    return std::uint64_t{1};
  };

  EXPECT_EQ(detect({"--max-sequences", "4"}), kExitOk);

  EXPECT_EQ(lines().size(), 23U);
  EXPECT_GE(testing::fake_engine().created.at(0).max_queue, 8);
}

TEST_F(Batch, AnInterruptCancelsWhatRunsAndKeepsWhatIsAnswered) {
  std::mutex mutex;
  std::map<std::uint64_t, Callbacks> waiting;
  std::uint64_t last_id = 0;
  testing::fake_engine().on_submit = [&](const Request& request, Callbacks callbacks) {
    std::uint64_t id = 0;
    {
      const std::lock_guard lock(mutex);
      id = ++last_id;
      if (content_of(request) != "a.jpg") waiting.emplace(id, callbacks);
    }
    if (content_of(request) == "a.jpg") {
      callbacks.on_done(Response{});
    } else if (content_of(request) == "c.jpg") {
      ::kill(::getpid(), SIGINT);
    }
    return id;
  };
  testing::fake_engine().on_cancel = [&](std::uint64_t id) {
    const std::lock_guard lock(mutex);
    const auto request = waiting.find(id);
    if (request == waiting.end()) return;
    request->second.on_done(Error{ErrorCode::kCancelled, "cancelled"});
    waiting.erase(request);
  };

  EXPECT_EQ(detect({"--csv", at("r.csv")}), 128 + SIGINT);

  EXPECT_THAT(err_.str(), HasSubstr("interrupted; the same command goes on"));
  EXPECT_EQ(lines().size(), 1U);
  EXPECT_THAT(read("r.csv"), HasSubstr("b.jpg,car,,,,,,yes"));
  testing::fake_engine().on_submit = nullptr;
  EXPECT_EQ(detect({"--csv", at("r.csv")}), kExitOk);
  EXPECT_EQ(num_asked(), 2U);
}

TEST_F(Batch, ALostDeviceStopsTheRunAndLeavesNoLine) {
  testing::fake_engine().response = Error{ErrorCode::kDeviceLost, "the device is gone"};

  EXPECT_EQ(detect(), kExitFailed);

  EXPECT_EQ(read("r.jsonl"), "");
  EXPECT_THAT(err_.str(), HasSubstr("fovea: the device is gone\n"));
}

TEST_F(Batch, AQuestionThatTheEngineRefusesStopsTheRun) {
  testing::fake_engine().on_submit = [](const Request&, const Callbacks&) {
    return Result<std::uint64_t>(Error{ErrorCode::kInvalidArgument, "the text is too long"});
  };

  EXPECT_EQ(detect(), kExitFailed);

  EXPECT_EQ(read("r.jsonl"), "");
  EXPECT_THAT(err_.str(), HasSubstr("fovea: the text is too long\n"));
}

TEST_F(Batch, WritesATableForEachSkill) {
  testing::fake_engine().response =
      Response{.text = "Two, \"big\"", .boxes = {{.x_max = 0.5}, {.x_max = 1}}};

  detect({"--csv", at("d.csv")});
  EXPECT_THAT(read("d.csv"), HasSubstr("path,object,x_min,y_min,x_max,y_max,confidence,missing\n"));
  EXPECT_THAT(read("d.csv"),
              HasSubstr("a.jpg,car,0.000000,0.000000,0.500000,0.000000,0.000000,\n"));
  caption({"--overwrite", "--csv", at("c.csv")});
  EXPECT_THAT(read("c.csv"), HasSubstr("a.jpg,\"Two, \"\"big\"\"\",stop,\n"));
  run_args(
      {at("in"), "--skill", "query", "--text", "how many?", "--overwrite", "--csv", at("q.csv")});
  EXPECT_THAT(read("q.csv"), HasSubstr("a.jpg,how many?,\"Two, \"\"big\"\"\",,stop,\n"));
}

TEST_F(Batch, WritesDataSets) {
  testing::fake_engine().response =
      Response{.boxes = {{.x_min = 0, .y_min = 0.5, .x_max = 0.5, .y_max = 1, .confidence = 1}}};
  testing::fake_engine().decoded = Image{200, 100, std::vector<std::uint8_t>(60000)};

  EXPECT_EQ(detect({"--text", "dog", "--coco", at("c.json"), "--yolo", at("y")}), kExitOk)
      << err_.str();

  const json::value coco = json::parse(read("c.json"));
  EXPECT_EQ(coco.at("images").at(1).at("file_name").as_string(), "b.jpg");
  EXPECT_EQ(coco.at("annotations").as_array().size(), 6U);
  EXPECT_EQ(coco.at("annotations").at(0).at("bbox"), json::parse("[0.0,50.0,100.0,50.0]"));
  EXPECT_EQ(read("y/labels/a.txt"),
            "0 0.250000 0.750000 0.500000 0.500000\n1 0.250000 0.750000 0.500000 0.500000\n");
  EXPECT_EQ(read("y/classes.txt"), "car\ndog\n");
  EXPECT_EQ(read("y/data.yaml"),
            "train: images\nval: images\nnames:\n  0: \"car\"\n  1: \"dog\"\n");
  EXPECT_EQ(read("y/images/c.jpg"), "c.jpg") << "a link to the picture";
}

TEST_F(Batch, DataSetsCanBeMadeAfterwards) {
  detect();
  testing::fake_engine().decoded = Image{200, 100, std::vector<std::uint8_t>(60000)};

  EXPECT_EQ(detect({"--coco", at("c.json")}), kExitOk);

  EXPECT_EQ(num_asked(), 0U);
  EXPECT_EQ(json::parse(read("c.json")).at("images").at(0).at("width").as_int64(), 200);
}

TEST_F(Batch, SidecarsAndCopiesAreMadeAgainWhereTheyAreMissing) {
  testing::fake_engine().response = Response{.text = " A moon."};
  EXPECT_EQ(caption({"--sidecar"}), kExitOk) << err_.str();
  EXPECT_EQ(read("in/b.txt"), "A moon.\n");
  fs::remove(at("in/b.txt"));
  write("in/a.txt", "edited");

  EXPECT_EQ(caption({"--sidecar"}), kExitOk) << err_.str();

  EXPECT_EQ(num_asked(), 0U);
  EXPECT_EQ(read("in/b.txt"), "A moon.\n");
  EXPECT_EQ(read("in/a.txt"), "edited");
}

TEST_F(Batch, AnnotatedCopiesShowAllTexts) {
  testing::fake_engine().response = Response{.boxes = {{.x_max = 0.5, .confidence = 1}}};

  EXPECT_EQ(detect({"--text", "dog", "--annotate", at("ann")}), kExitOk) << err_.str();

  EXPECT_EQ(read("ann/a.png"), "a picture");
  ASSERT_EQ(testing::fake_engine().boxes.size(), 2U);
  EXPECT_EQ(testing::fake_engine().boxes[0].label, "car 1.00");
  EXPECT_EQ(testing::fake_engine().boxes[1].label, "dog 1.00");
}

TEST_F(Batch, CopiesOfPicturesWithOneStemKeepBothEndings) {
  write("in/a.gif", "a.gif");

  EXPECT_EQ(detect({"--annotate", at("ann")}), kExitOk);

  EXPECT_TRUE(fs::exists(at("ann/a.gif.png")));
  EXPECT_TRUE(fs::exists(at("ann/a.jpg.png")));
  EXPECT_TRUE(fs::exists(at("ann/b.png")));
}

TEST_F(Batch, NothingOfTheUsersIsWrittenOver) {
  write("in/a.png", "mine");
  EXPECT_EQ(detect({"--annotate", at("in")}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("would lie among the pictures"));
  EXPECT_EQ(detect({"--yolo", at("y")}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("share one YOLO label file"));
  EXPECT_EQ(caption({"--sidecar"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("would both be described"));
  fs::remove(at("in/a.png"));

  write("in/b.txt", "mine");
  EXPECT_EQ(caption({"--sidecar"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("b.txt is there already"));
  write("set.json", "mine");
  EXPECT_EQ(detect({"--coco", at("set.json")}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("set.json is there already"));
  EXPECT_EQ(read("in/b.txt") + read("set.json"), "minemine");
  EXPECT_EQ(num_asked(), 0U);
}

TEST_F(Batch, DryRunListsAndWritesNothing) {
  write("list", at("in/a.jpg") + "\n" + at("none.jpg") + "\n");

  EXPECT_EQ(run_args({"@" + at("list"), "--skill", "caption", "--sidecar", "--dry-run"}), kExitOk);

  EXPECT_THAT(out_.str(), HasSubstr("ask   " + at("in/a.jpg") + "  -> " + at("in/a.txt") + "\n"));
  EXPECT_THAT(out_.str(), HasSubstr("fail  " + at("none.jpg")));
  EXPECT_THAT(out_.str(), HasSubstr("2 pictures: 2 to do, 0 done before"));
  EXPECT_FALSE(fs::exists(at("r.jsonl")));
  EXPECT_TRUE(testing::fake_engine().created.empty());
}

TEST_F(Batch, OnlyATerminalSeesABar) {
  detect();
  EXPECT_THAT(err_.str(), Not(HasSubstr("\r")));
  is_terminal_ = true;
  detect({"--overwrite"});
  EXPECT_THAT(err_.str(), HasSubstr("1/3"));
}

TEST_F(Batch, AnUnwritableOutputIsFoundBeforeTheModelIsLoaded) {
  EXPECT_EQ(detect({"--csv", at("none/r.csv")}), kExitFailed);

  EXPECT_THAT(err_.str(), HasSubstr("none/r.csv"));
  EXPECT_TRUE(testing::fake_engine().created.empty());
}

TEST_F(Batch, DefaultActionsOfSignalsComeBack) {
  detect();

  struct sigaction now = {};
  ::sigaction(SIGINT, nullptr, &now);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
}

}  // namespace
}  // namespace fovea::cli
