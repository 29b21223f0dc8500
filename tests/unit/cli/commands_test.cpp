#include "commands.h"

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <sstream>

#include "model_path.h"
#include "support/fake_engine.h"
#include "support/scratch_folder.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using ::testing::HasSubstr;

// The whole program with a fake engine: arguments and files in, streams and exit code out.
class Program : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::fake_engine() = {};
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing_support::scratch_folder() / (std::string("fovea_") + test->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "model");
    std::ofstream(picture()) << "bytes of a picture";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string picture() const { return folder_ / "photo.jpg"; }
  std::string annotated() const { return folder_ / "out.png"; }

  int run_program(std::vector<std::string> args) {
    args.insert(args.end(), {"--model", folder_ / "model"});
    return run(args, {.in = in_, .out = out_, .err = err_, .err_is_terminal = is_terminal_});
  }

  json::value output_json() const {
    json::error_code error;
    json::value value = json::parse(out_.str(), error);
    EXPECT_FALSE(error) << out_.str();
    return value;
  }

  fs::path folder_;
  std::istringstream in_;
  std::ostringstream out_;
  std::ostringstream err_;
  bool is_terminal_ = false;
};

TEST_F(Program, PrintsACaptionAsALine) {
  testing::fake_engine().response = Response{.text = " A crescent moon."};

  EXPECT_EQ(run_program({"caption", picture()}), kExitOk);

  EXPECT_EQ(out_.str(), "A crescent moon.\n");
  EXPECT_EQ(err_.str(), "");
}

TEST_F(Program, HandsThePictureBytesToTheEngine) {
  run_program({"caption", picture(), "--no-exif"});

  ASSERT_EQ(testing::fake_engine().requests.size(), 1U);
  const Request& request = testing::fake_engine().requests[0];
  const auto& bytes = *request.picture.value().file();
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
            "bytes of a picture");
  EXPECT_FALSE(request.apply_exif);
  EXPECT_EQ(testing::fake_engine().created.at(0).model, folder_ / "model");
}

TEST_F(Program, ReadsThePictureFromStandardInput) {
  in_.str(std::string("a\0b", 3));

  run_program({"caption", "-"});

  const Request& request = testing::fake_engine().requests.at(0);
  EXPECT_EQ(request.picture.value().file()->size(), 3U);
}

TEST_F(Program, TextOnlyQuestionSendsNoPicture) {
  run_program({"query", "--no-picture", "why?"});

  EXPECT_FALSE(testing::fake_engine().requests.at(0).picture.has_value());
}

TEST_F(Program, StreamsPiecesAndEndsTheLine) {
  testing::fake_engine().pieces = {"Two", " dogs.\x1b[2J"};

  EXPECT_EQ(run_program({"query", picture(), "what?", "--stream"}), kExitOk);

  EXPECT_EQ(out_.str(), "Two dogs.[2J\n") << "no control characters from a model to a terminal";
}

TEST_F(Program, StreamsJsonLinesBeforeTheFinalObject) {
  testing::fake_engine().pieces = {"Two", " dogs."};
  testing::fake_engine().response = Response{.text = "Two dogs."};

  EXPECT_EQ(run_program({"query", picture(), "what?", "--stream", "--json"}), kExitOk);

  std::istringstream lines(out_.str());
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, R"({"chunk":"Two"})");
  std::getline(lines, line);
  EXPECT_EQ(line, R"({"chunk":" dogs."})");
  std::getline(lines, line);
  EXPECT_EQ(json::parse(line).at("answer").as_string(), "Two dogs.");
  EXPECT_FALSE(std::getline(lines, line));
}

TEST_F(Program, SeveralQuestionsShareThePictureAndAreAnsweredInOrder) {
  testing::fake_engine().responses = {Response{.text = " Two."}, Response{.text = " Rain."}};

  EXPECT_EQ(run_program({"query", picture(), "How many?", "--also", "What weather?"}), kExitOk);

  EXPECT_EQ(out_.str(), "How many?\nTwo.\n\nWhat weather?\nRain.\n");
  const auto& requests = testing::fake_engine().requests;
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].picture->file(), requests[1].picture->file()) << "one copy";
}

TEST_F(Program, SeveralAnswersHaveSeedsByWhichEachIsFoundAgain) {
  testing::fake_engine().responses = {Response{.text = " A."}, Response{.text = " B."}};

  EXPECT_EQ(run_program({"caption", picture(), "-n", "2", "--seed", "7", "--json"}), kExitOk);

  EXPECT_EQ(testing::fake_engine().requests.at(0).sampling.seed, 7U);
  EXPECT_EQ(testing::fake_engine().requests.at(1).sampling.seed, 8U);
  std::istringstream lines(out_.str());
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line.find(R"({"index":0,"seed":7,"caption":" A.",)"), 0U) << line;
  std::getline(lines, line);
  EXPECT_EQ(line.find(R"({"index":0,"seed":8,"caption":" B.",)"), 0U) << line;
}

TEST_F(Program, OneOfSeveralQuestionsThatFailsLeavesTheOthers) {
  testing::fake_engine().responses = {Error{ErrorCode::kInvalidArgument, "too odd"},
                                      Response{.boxes = {{}}}};

  EXPECT_EQ(run_program({"detect", picture(), "dog", "--also", "cat", "--json"}), kExitFailed);

  EXPECT_EQ(err_.str(), "fovea: too odd\n");
  std::istringstream lines(out_.str());
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(
      line,
      R"({"index":0,"object":"dog","error":{"message":"too odd","type":"invalid_argument"}})");
  std::getline(lines, line);
  EXPECT_EQ(json::parse(line).at("object").as_string(), "cat");
  EXPECT_EQ(json::parse(line).at("objects").as_array().size(), 1U);
}

TEST_F(Program, AnnotateDrawsWhatAllQuestionsFound) {
  testing::fake_engine().responses = {Response{.boxes = {{.confidence = 0.5}}},
                                      Response{.boxes = {{.confidence = 1}}}};

  EXPECT_EQ(run_program({"detect", picture(), "dog", "--also", "cat", "--annotate", annotated()}),
            kExitOk);

  ASSERT_EQ(testing::fake_engine().boxes.size(), 2U);
  EXPECT_EQ(testing::fake_engine().boxes[1].label, "cat 1.00");
}

TEST_F(Program, ASchemaIsTextOrTheNameOfAFile) {
  std::ofstream(folder_ / "schema.json") << R"({"type":"integer"})";

  run_program({"query", picture(), "how many?", "--json-schema", folder_ / "schema.json"});
  run_program({"query", picture(), "how many?", "--json-schema", R"( {"type":"string"})"});

  const auto& requests = testing::fake_engine().requests;
  EXPECT_EQ(std::get<QueryRequest>(requests.at(0).skill).json_schema, R"({"type":"integer"})");
  EXPECT_EQ(std::get<QueryRequest>(requests.at(1).skill).json_schema, R"( {"type":"string"})");
  EXPECT_EQ(run_program({"query", picture(), "q", "--json-schema", folder_ / "none"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("none"));
}

TEST_F(Program, MissingPictureFailsBeforeTheModelIsLoaded) {
  EXPECT_EQ(run_program({"caption", folder_ / "none.jpg"}), kExitFailed);

  EXPECT_THAT(err_.str(), AllOf(HasSubstr("fovea: cannot open"), HasSubstr("none.jpg")));
  EXPECT_EQ(out_.str(), "");
  EXPECT_TRUE(testing::fake_engine().created.empty());
}

TEST_F(Program, FailureWithJsonIsAnObjectToo) {
  testing::fake_engine().response = Error{ErrorCode::kResourceExhausted, "too many pixels"};

  EXPECT_EQ(run_program({"caption", picture(), "--json"}), kExitFailed);

  EXPECT_EQ(err_.str(), "fovea: too many pixels\n");
  const json::value error = output_json().at("error");
  EXPECT_EQ(error.at("message").as_string(), "too many pixels");
  EXPECT_EQ(error.at("type").as_string(), "resource_exhausted");
}

TEST_F(Program, FailureToLoadIsReported) {
  testing::fake_engine().create_status = Error{ErrorCode::kNotFound, "no tensor text.wte"};

  EXPECT_EQ(run_program({"caption", picture()}), kExitFailed);

  EXPECT_EQ(err_.str(), "fovea: no tensor text.wte\n");
}

TEST_F(Program, FullStandardOutputIsAFailure) {
  out_.setstate(std::ios::badbit);

  EXPECT_EQ(run_program({"caption", picture()}), kExitFailed);

  EXPECT_THAT(err_.str(), HasSubstr("cannot write to standard output"));
}

TEST_F(Program, AnnotateDrawsBoxesWithLabels) {
  testing::fake_engine().response = Response{
      .boxes = {{.x_min = 0.1, .y_min = 0.2, .x_max = 0.3, .y_max = 0.4, .confidence = 0.876}}};

  EXPECT_EQ(run_program({"detect", picture(), "red car", "--annotate", annotated()}), kExitOk);

  ASSERT_EQ(testing::fake_engine().boxes.size(), 1U);
  EXPECT_EQ(testing::fake_engine().boxes[0].label, "red car 0.88");
  EXPECT_EQ(testing::fake_engine().boxes[0].y_max, 0.4);
  EXPECT_EQ(fs::file_size(annotated()), std::string("a picture").size());
}

TEST_F(Program, AnnotateLabelsGroundedPointsWithTheirWords) {
  testing::fake_engine().response =
      Response{.reasoning = Reasoning{"Ein Käfer läuft", {{4, 9, {{.x = 0.5, .y = 0.25}}}}}};

  run_program({"query", picture(), "what?", "--reasoning", "--annotate", annotated()});

  ASSERT_EQ(testing::fake_engine().points.size(), 1U);
  EXPECT_EQ(testing::fake_engine().points[0].label, "Käfer");
  EXPECT_EQ(testing::fake_engine().points[0].x, 0.5);
}

TEST_F(Program, AnnotateIntoAMissingFolderFailsBeforeTheModelIsLoaded) {
  EXPECT_EQ(run_program({"detect", picture(), "x", "--annotate", folder_ / "no" / "out.png"}),
            kExitFailed);

  EXPECT_THAT(err_.str(), HasSubstr("cannot write"));
  EXPECT_TRUE(testing::fake_engine().created.empty());
}

TEST_F(Program, FailedAnnotationLeavesTheAnswerAndOneObject) {
  testing::fake_engine().decoded = Error{ErrorCode::kIo, "cannot decode"};

  EXPECT_EQ(run_program({"point", picture(), "x", "--json", "--annotate", annotated()}),
            kExitFailed);

  EXPECT_EQ(output_json().at("count").as_int64(), 0);
  EXPECT_EQ(err_.str(), "fovea: cannot decode\n");
  EXPECT_FALSE(fs::exists(annotated()));
}

TEST_F(Program, ShowsNoProgressInAPipe) {
  testing::fake_engine().load_fractions = {0.0, 0.5, 1.0};

  run_program({"caption", picture()});

  EXPECT_FALSE(testing::fake_engine().created.at(0).on_load_progress);
  EXPECT_EQ(err_.str(), "");
}

TEST_F(Program, InfoPrintsTheModelsMemory) {
  testing::fake_engine().info = {.family = "moondream2",
                                 .device = "cpu",
                                 .precision = "bf16",
                                 .weight_bytes = std::size_t{3} << 20};

  EXPECT_EQ(run_program({"info"}), kExitOk);

  EXPECT_THAT(out_.str(),
              AllOf(HasSubstr("moondream2"), HasSubstr("3.0 MiB"), HasSubstr("not built in")));
}

TEST_F(Program, InfoWithoutAModelListsDevicesOnly) {
  const std::vector<std::string> args = {"info", "--json"};

  EXPECT_EQ(run(args, {.in = in_, .out = out_, .err = err_}), kExitOk);

  EXPECT_TRUE(output_json().at("model").is_null());
  EXPECT_EQ(output_json().at("devices").at(1).at("available").as_bool(), false);
}

TEST_F(Program, WithoutAnyModelTheMessageSaysHowToGiveOne) {
  const std::vector<std::string> args = {"caption", picture()};

  EXPECT_EQ(
      run(args, {.in = in_, .out = out_, .err = err_, .executable = folder_ / "bin" / "fovea"}),
      kExitFailed);

  EXPECT_THAT(err_.str(), HasSubstr("--model DIR"));
}

TEST_F(Program, FindsTheTinyModelWhereBuildsAndInstallationsPutIt) {
  const fs::path root = fs::canonical(folder_);
  for (const fs::path& place :
       {root / "a/bin/models/tiny", root / "b/models/tiny", root / "c/share/fovea/models/tiny"}) {
    fs::create_directories(place);
    std::ofstream(place / "model.safetensors") << "weights";
  }
  fs::create_directories(root / "d/bin/models/tiny");  // nothing in it

  const auto found = [](std::optional<std::string> name, const fs::path& executable) {
    const Result<fs::path> path = find_model(name, {.executable = executable});
    return path.ok() ? path.value().string() : path.error().message;
  };
  EXPECT_EQ(found({}, root / "a/bin/fovea"), root / "a/bin/models/tiny");
  EXPECT_EQ(found("tiny", root / "b/build/release/fovea"), root / "b/models/tiny");
  EXPECT_EQ(found("tiny", root / "c/bin/fovea"), root / "c/share/fovea/models/tiny");
  EXPECT_EQ(found((root / "b").string(), root / "a/bin/fovea"), root / "b");
  EXPECT_THAT(found("tiny", root / "d/bin/fovea"), HasSubstr("not part of this installation"));
  EXPECT_THAT(found("none", root / "a/bin/fovea"), HasSubstr("there is no model at none"));
}

}  // namespace
}  // namespace fovea::cli
