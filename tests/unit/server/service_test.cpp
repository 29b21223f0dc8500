// The Moondream routes, models, health: requests in, answers out, without sockets.

#include "service.h"

#include "service_fixture.h"

namespace fovea::server {
namespace {

using ::testing::HasSubstr;
using testing::ServiceTest;

constexpr const char* kPicture = R"("image_url":"data:image/png;base64,AAECAw==")";

std::string with_picture(const std::string& fields) {
  return "{" + std::string(kPicture) + (fields.empty() ? "" : ",") + fields + "}";
}

TEST_F(ServiceTest, Caption_AnswersWithTheProtocolsObject) {
  fake().response = Response{.text = "A moon.", .usage = {.prompt_tokens = 735}};

  const auto answer = post("/v1/caption", with_picture(R"("length":"short")"));

  ASSERT_TRUE(answer->whole);
  EXPECT_EQ(answer->whole->status, 200);
  EXPECT_EQ(answer->json().at("caption"), "A moon.");
  EXPECT_EQ(answer->json().at("request_id"), "test-id");
  EXPECT_EQ(answer->json().at("finish_reason"), "stop");
  EXPECT_EQ(answer->json().at("metrics").at("input_tokens"), 735);
  const Request& request = fake().requests.at(0);
  EXPECT_EQ(std::get<CaptionRequest>(request.skill).length, CaptionLength::kShort);
  ASSERT_TRUE(request.picture);
  EXPECT_EQ(request.picture->file()->size(), 4U);
  EXPECT_FALSE(request.apply_exif);
  EXPECT_EQ(request.request_id, "test-id");
}

TEST_F(ServiceTest, Settings_AreTakenInBothCasesAndFromTheTop) {
  post("/v1/query", R"({"question":" Why? ","settings":{"maxTokens":7,"temperature":0.5},)"
                    R"("top_p":0.25,"seed":-1,"unknown":[1]})");

  const Request& request = fake().requests.at(0);
  EXPECT_EQ(request.sampling.max_tokens, 7);
  EXPECT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_p, 0.25F);
  EXPECT_EQ(request.sampling.seed, ~std::uint64_t{0});
  EXPECT_EQ(std::get<QueryRequest>(request.skill).question, "Why?");
  EXPECT_EQ(std::get<QueryRequest>(request.skill).reasoning, false);
}

TEST_F(ServiceTest, SpatialRefs_KeepTheirOrder) {
  post("/v1/query", with_picture(R"("question":"?","spatial_refs":[[0.5,0.5],[0.1,0.1,0.4,0.6]])"));

  const auto& query = std::get<QueryRequest>(fake().requests.at(0).skill);
  ASSERT_EQ(query.spatial_refs.size(), 2U);
  EXPECT_EQ(query.spatial_refs[0].index(), 0U);
  EXPECT_EQ(query.spatial_refs[1].index(), 1U);
}

TEST_F(ServiceTest, WrongFields_Are400WithTheFieldsName) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"question":5})", "question"},
      {R"({"question":"  "})", "question"},
      {R"({})", "question"},
      {R"({"question":"?","stream":"yes"})", "stream"},
      {R"({"question":"?","reasoning":1})", "reasoning"},
      {R"({"question":"?","settings":{"temperature":-1}})", "settings.temperature"},
      {R"({"question":"?","settings":{"temperature":"hot"}})", "settings.temperature"},
      {R"({"question":"?","settings":{"max_tokens":0}})", "settings.max_tokens"},
      {R"({"question":"?","max_tokens":2.5})", "max_tokens"},
      {R"({"question":"?","top_p":0})", "top_p"},
      {R"({"question":"?","settings":[]})", "settings"},
      {R"({"question":"?","spatial_refs":[[2,0]]})", "spatial_refs"},
      {R"({"question":"?","spatial_refs":[[0.1,0.1]]})", "image_url"},
      {R"({"question":"?","image_url":7})", "image_url"},
      {R"({"question":"?","image_url":"data:image/png;base64,%%"})", "image_url"},
      {R"({"question":"?","image_url":"file:///etc/passwd"})", "image_url"},
      {R"({"question":"?","image_url":"/etc/motd.txt"})", "image_url"},
      {R"({"question":"?","image_url":"http://example.org/a.png"})", "image_url"},
  };
  for (const auto& [body, param] : cases) {
    const auto answer = post("/v1/query", body);
    ASSERT_TRUE(answer->whole) << body;
    EXPECT_EQ(answer->whole->status, 400) << body;
    EXPECT_EQ(error_param(*answer), param) << body;
  }
  EXPECT_TRUE(fake().requests.empty());
}

TEST_F(ServiceTest, BrokenJson_IsInvalidJson) {
  for (const char* body : {"", "{", "[1]", "{\"a\":1}x", "{\"a\":\"\xff\"}"}) {
    const auto answer = post("/v1/query", body);
    EXPECT_EQ(answer->whole->status, 400);
    EXPECT_EQ(error_code(*answer), "invalid_json") << body;
  }
}

TEST_F(ServiceTest, MissingPicture_IsMissingField) {
  for (const char* path : {"/v1/caption", "/v1/detect", "/v1/point"}) {
    const auto answer = post(path, R"({"object":"car"})");
    EXPECT_EQ(error_code(*answer), "missing_field") << path;
    EXPECT_EQ(error_param(*answer), "image_url") << path;
  }
}

TEST_F(ServiceTest, EnginesErrors_HaveTheirStatus) {
  const std::vector<std::pair<ErrorCode, int>> cases = {
      {ErrorCode::kInvalidArgument, 400},  {ErrorCode::kResourceExhausted, 413},
      {ErrorCode::kUnsupported, 501},      {ErrorCode::kCancelled, 503},
      {ErrorCode::kDeadlineExceeded, 504}, {ErrorCode::kInternal, 500},
      {ErrorCode::kDeviceLost, 500}};
  for (const auto& [code, status] : cases) {
    fake().response = Error{code, "went wrong"};
    for (const char* stream : {"false", "true"}) {
      const auto answer = post("/v1/caption", with_picture(std::string(R"("stream":)") + stream));
      ASSERT_TRUE(answer->whole) << error_code_name(code);
      EXPECT_EQ(answer->whole->status, status) << error_code_name(code);
      EXPECT_FALSE(answer->head);
    }
  }
}

TEST_F(ServiceTest, FullQueue_Is429WithRetryAfter) {
  fake().on_submit = [](const Request&, Callbacks) {
    return Error{ErrorCode::kOverloaded, "1024 requests are inside"};
  };

  const auto answer = post("/v1/caption", with_picture(R"("stream":true)"));

  EXPECT_EQ(answer->whole->status, 429);
  EXPECT_EQ(error_code(*answer), "queue_full");
  EXPECT_THAT(answer->whole->headers,
              ::testing::Contains(std::pair<std::string, std::string>("Retry-After", "1")));
}

TEST_F(ServiceTest, Stream_IsEventsAndALastOneWithTheWholeText) {
  fake().pieces = {"Caf\xc3\xa9", " \xf0\x9f\x8c\x99"};
  fake().response = Response{.text = "Caf\xc3\xa9 \xf0\x9f\x8c\x99"};

  const auto answer = post("/v1/caption", with_picture(R"("stream":true)"));

  ASSERT_TRUE(answer->head);
  EXPECT_EQ(answer->head->content_type, "text/event-stream; charset=utf-8");
  EXPECT_TRUE(answer->has_ended);
  const auto events = answer->stream();
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].at("chunk"), "Caf\xc3\xa9");
  EXPECT_EQ(events[0].at("completed"), false);
  EXPECT_EQ(events[2].at("completed"), true);
  EXPECT_EQ(events[2].at("chunk"), "");
  EXPECT_EQ(events[2].at("caption"), "Caf\xc3\xa9 \xf0\x9f\x8c\x99");
  EXPECT_EQ(events[2].at("request_id"), "test-id");
  // Packets may end anywhere: a reader must never see half a character.
  EXPECT_THAT(answer->events, HasSubstr("\\u00e9"));
  EXPECT_THAT(answer->events, HasSubstr("\\ud83c\\udf19"));
  for (const char c : answer->events) EXPECT_GE(c, 0);
}

TEST_F(ServiceTest, FailureInAStream_IsAnErrorEventAndACut) {
  fake().pieces = {"A"};
  fake().response = Error{ErrorCode::kInternal, "broken"};

  const auto answer = post("/v1/caption", with_picture(R"("stream":true)"));

  EXPECT_TRUE(answer->was_aborted);
  EXPECT_FALSE(answer->has_ended);
  EXPECT_EQ(answer->stream().back().at("error").at("code"), "internal_error");
  EXPECT_FALSE(answer->stream().back().as_object().contains("completed"));
}

TEST_F(ServiceTest, ReaderThatIsGone_EndsItsRequest) {
  bool goes_on = true;
  fake().on_submit = [&goes_on](const Request&, const Callbacks& callbacks) {
    goes_on = callbacks.on_text("A");
    return std::uint64_t{7};
  };
  auto responder = std::make_shared<testing::CollectingResponder>();
  responder->reads = false;
  HttpRequest request{.method = "POST", .path = "/v1/caption"};
  request.body = with_picture(R"("stream":true)");

  service().handle(request, responder);
  EXPECT_FALSE(goes_on);
  ASSERT_EQ(responder->gones.size(), 1U);
  responder->gones[0]();
  EXPECT_EQ(fake().cancelled, std::vector<std::uint64_t>{7});
}

TEST_F(ServiceTest, DetectAndPoint_IgnoreStream) {
  fake().response = Response{.boxes = {{.x_max = 0.5}}, .points = {{.x = 0.25}}};

  const auto detect = post("/v1/detect", with_picture(R"("obj":"car","stream":true)"));
  const auto point = post("/v1/point", with_picture(R"("object":"car","stream":true)"));

  EXPECT_EQ(detect->json().at("objects").as_array().size(), 1U);
  EXPECT_EQ(point->json().at("points").as_array().size(), 1U);
  EXPECT_EQ(point->json().at("count"), 1);
}

TEST_F(ServiceTest, Segment_Is501) {
  EXPECT_EQ(post("/v1/segment", with_picture(R"("object":"cat")"))->whole->status, 501);
}

TEST_F(ServiceTest, Model_SelectsAdaptersAndRefusesStrangers) {
  const auto adapter_of = [this](const std::string& model) {
    fake().requests.clear();
    const auto answer = post("/v1/query", R"({"question":"?","model":")" + model + "\"}");
    return answer->whole->status == 200 ? fake().requests.at(0).adapter : error_code(*answer);
  };
  for (const char* base :
       {"moondream", "moondream2", "vikhyatk/moondream2", "moondream/moondream2"}) {
    EXPECT_EQ(adapter_of(base), "") << base;
  }
  EXPECT_EQ(adapter_of("birds"), "birds");
  EXPECT_EQ(adapter_of("moondream2/birds@5"), "birds");
  EXPECT_EQ(adapter_of("moondream2/01HX@120"), "01HX@120");
  EXPECT_EQ(adapter_of("moondream3-preview"), "model_not_found");
  EXPECT_EQ(adapter_of("moondream2/fish@5"), "model_not_found");
  EXPECT_EQ(adapter_of("gpt-4o"), "model_not_found");
}

TEST_F(ServiceTest, Models_ListAdaptersWithTheirParent) {
  const auto list = get("/v1/models")->json();
  EXPECT_EQ(list.at("object"), "list");
  ASSERT_EQ(list.at("data").as_array().size(), 3U);
  EXPECT_TRUE(list.at("data").at(0).at("parent").is_null());
  EXPECT_EQ(list.at("data").at(1).at("parent"), "moondream2");
  EXPECT_EQ(list.at("models").at(0).at("id"), "moondream2");
  EXPECT_EQ(get("/v1/models/moondream%2Fmoondream2")->json().at("object"), "model");
  EXPECT_EQ(get("/v1/models/birds")->json().at("parent"), "moondream2");
  EXPECT_EQ(get("/v1/models/fish")->whole->status, 404);
}

TEST_F(ServiceTest, Models_AreCalledAsTheyWereLoadedAndByTheNamesOfTheirFamily) {
  options.model_name = "tiny";
  EXPECT_EQ(get("/v1/models")->json().at("data").at(0).at("id"), "tiny");
  EXPECT_EQ(get("/v1/models/tiny")->json().at("id"), "tiny");
  for (const char* name : {"tiny", "moondream2", "vikhyatk/moondream2", "moondream"}) {
    const std::string body = R"({"question":"?","model":")" + std::string(name) + "\"}";
    EXPECT_EQ(post("/v1/query", body)->whole->status, 200) << name;
  }
  EXPECT_EQ(get("/v1/models/birds")->json().at("parent"), "tiny");
}

TEST_F(ServiceTest, Models_AreThoseOfTheMoment) {
  EXPECT_EQ(get("/v1/models/fish")->whole->status, 404);
  fake().adapters.push_back({.name = "fish"});
  EXPECT_EQ(get("/v1/models/fish")->json().at("parent"), "moondream2");
  EXPECT_EQ(get("/v1/models")->json().at("data").as_array().size(), 4U);
  EXPECT_EQ(post("/v1/query", R"({"question":"?","model":"fish"})")->whole->status, 200);
  fake().adapters.clear();
  EXPECT_EQ(get("/v1/models")->json().at("data").as_array().size(), 1U);
  EXPECT_EQ(post("/v1/query", R"({"question":"?","model":"fish"})")->whole->status, 404);
}

TEST_F(ServiceTest, Routes_WorkWithoutVersionAndWithSpareSlashes) {
  for (const char* path : {"/caption", "/v1/caption/", "/v1//caption", "//caption/"}) {
    EXPECT_EQ(post(path, with_picture(""))->whole->status, 200) << path;
  }
  const auto wrong_method = get("/v1/caption");
  EXPECT_EQ(wrong_method->whole->status, 405);
  EXPECT_THAT(wrong_method->whole->headers,
              ::testing::Contains(std::pair<std::string, std::string>("Allow", "POST")));
  EXPECT_EQ(post("/v1/embeddings", "{}")->whole->status, 404);
}

TEST_F(ServiceTest, WhileLoading_HealthAndWorkAre503) {
  Service loading(options, nullptr);
  auto responder = std::make_shared<testing::CollectingResponder>();
  HttpRequest request{.method = "GET", .path = "/health"};
  EXPECT_FALSE(loading.check_head(request));
  loading.handle(request, responder);
  EXPECT_EQ(responder->whole->status, 503);
  EXPECT_EQ(responder->json().at("status"), "starting");
  EXPECT_EQ(responder->json().at("error").at("code"), "loading");
  request = {.method = "POST", .path = "/v1/caption"};
  EXPECT_EQ(loading.check_head(request)->status, 503);
}

TEST_F(ServiceTest, WhileDraining_NewWorkIs503) {
  service().drain();
  EXPECT_EQ(post("/v1/caption", with_picture(""))->whole->status, 503);
  EXPECT_EQ(get("/health")->whole->status, 503);
  EXPECT_EQ(get("/v1/models")->whole->status, 200);
}

TEST_F(ServiceTest, Metrics_AreTheEnginesAndTheServers) {
  options.metrics_prefix = "vllm:";
  service().metrics().count("caption", 200);
  const auto answer = get("/metrics");
  EXPECT_EQ(answer->whole->content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(answer->whole->body, HasSubstr("# TYPE vllm:num_requests_running gauge\n"));
  EXPECT_THAT(answer->whole->body,
              HasSubstr("\nvllm:num_requests_running{model_name=\"fake\"} 0\n"));
  EXPECT_THAT(answer->whole->body,
              HasSubstr("vllm:http_requests_total{route=\"caption\",status=\"200\"} 1\n"));
}

TEST_F(ServiceTest, Tokenize_GoesThereAndBack) {
  const auto there = post("/tokenize", R"({"prompt":"ab"})");
  EXPECT_EQ(there->json().at("count"), 2);
  const auto back = post("/detokenize", R"({"tokens":[97,98]})");
  EXPECT_EQ(back->json().at("prompt"), "ab");
  EXPECT_EQ(post("/detokenize", R"({"tokens":["a"]})")->whole->status, 400);
}

}  // namespace
}  // namespace fovea::server
