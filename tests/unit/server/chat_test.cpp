// OpenAI's chat and text completions, without sockets.

#include "service_fixture.h"

namespace fovea::server {
namespace {

using testing::ServiceTest;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kAsk = R"("messages":[{"role":"user","content":"Why?"}])";

std::string body(const std::string& fields) {
  return "{" + std::string(kAsk) + (fields.empty() ? "" : ",") + fields + "}";
}

TEST_F(ServiceTest, Chat_AnswersWithACompletion) {
  fake().response = Response{
      .text = "Cat", .usage = {.prompt_tokens = 742, .completion_tokens = 2, .cached_tokens = 730}};

  const auto answer = post(kChat, body(R"("model":"moondream","max_tokens":9,)"
                                       R"("max_completion_tokens":5,"user":"me","store":true)"));

  ASSERT_EQ(answer->whole->status, 200) << answer->whole->body;
  const auto json = answer->json();
  EXPECT_EQ(json.at("id"), "chatcmpl-test-id");
  EXPECT_EQ(json.at("object"), "chat.completion");
  EXPECT_EQ(json.at("model"), "moondream");
  const auto& choice = json.at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("role"), "assistant");
  EXPECT_EQ(choice.at("message").at("content"), "Cat");
  EXPECT_TRUE(choice.at("logprobs").is_null());
  EXPECT_EQ(choice.at("finish_reason"), "stop");
  EXPECT_EQ(json.at("usage").at("total_tokens"), 744);
  EXPECT_EQ(json.at("usage").at("prompt_tokens_details").at("cached_tokens"), 730);
  EXPECT_EQ(fake().requests.at(0).sampling.max_tokens, 5);
  EXPECT_EQ(fake().requests.at(0).request_id, "test-id");
}

TEST_F(ServiceTest, Chat_MakesOneQuestionOfAConversation) {
  post(kChat, R"({"messages":[
    {"role":"developer","content":"Be short."},
    {"role":"user","content":[{"type":"text","text":"What is it?"},
                              {"type":"image_url","image_url":{"url":"AAECAw==","detail":"low"}}]},
    {"role":"assistant","content":"A cat."},
    {"role":"user","content":[{"type":"text","text":"Which"},{"type":"text","text":"colour?"}]}]})");

  ASSERT_EQ(fake().requests.size(), 1U);
  const Request& request = fake().requests[0];
  EXPECT_EQ(std::get<QueryRequest>(request.skill).question,
            "Be short.\n\nWhat is it?\n\nAnswer: A cat.\n\nQuestion: Which\ncolour?");
  EXPECT_TRUE(request.picture);
}

TEST_F(ServiceTest, Chat_TakesPicturesAsStringsAndRepeated) {
  for (const char* part : {R"({"type":"image_url","image_url":"AAECAw=="})",
                           R"({"type":"input_image","image_url":"data:x;base64,AAECAw=="})"}) {
    fake().requests.clear();
    const auto answer = post(kChat, std::string(R"({"messages":[{"role":"user","content":[)") +
                                        part + "," + part + R"(,{"type":"text","text":"?"}]}]})");
    EXPECT_EQ(answer->whole->status, 200) << answer->whole->body;
    EXPECT_TRUE(fake().requests.at(0).picture);
  }
}

TEST_F(ServiceTest, Chat_RefusesWhatItCannotDo) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({})", "messages"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":"hi"})", "messages"},
      {R"({"messages":[{"role":"tool","content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]})",
       "messages"},
      {R"({"messages":[{"role":"user","content":[{"type":"input_audio"}]}]})",
       "messages[0].content[0].type"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})",
       "messages[0].content[0].image_url"},
      {body(R"("tools":[{"type":"function"}])"), "tools"},
      {body(R"("tool_choice":"required")"), "tool_choice"},
      {body(R"("n":0)"), "n"},
      {body(R"("n":17)"), "n"},
      {body(R"("stop":[1])"), "stop"},
      {body(R"("presence_penalty":3)"), "presence_penalty"},
      {body(R"("temperature":-0.1)"), "temperature"},
      {body(R"("top_logprobs":2)"), "top_logprobs"},
      {body(R"("logprobs":true,"top_logprobs":21)"), "top_logprobs"},
      {body(R"("logit_bias":{"a":1})"), "logit_bias"},
      {body(R"("response_format":{"type":"xml"})"), "response_format"},
      {body(R"("response_format":{"type":"json_schema"})"), "response_format"},
      {body(R"("grammar":"root ::= x")"), "grammar"},
  };
  for (const auto& [text, param] : cases) {
    const auto answer = post(kChat, text);
    EXPECT_EQ(answer->whole->status, 400) << text;
    EXPECT_EQ(error_param(*answer), param) << text << answer->whole->body;
  }
  EXPECT_EQ(post(kChat, body(R"("tools":[],"tool_choice":"none","stop":null)"))->whole->status,
            200);
}

TEST_F(ServiceTest, Chat_RefusesASecondPicture) {
  const auto answer = post(kChat, R"({"messages":[{"role":"user","content":[
    {"type":"image_url","image_url":"AAEC"},{"type":"image_url","image_url":"AAED"},
    {"type":"text","text":"?"}]}]})");
  EXPECT_EQ(answer->whole->status, 400);
  EXPECT_EQ(error_code(*answer), "unsupported_value");
}

TEST_F(ServiceTest, Chat_PassesSamplingAndSchemaOn) {
  post(kChat,
       body(R"("temperature":0,"seed":7,"stop":"\n","top_k":3,"presence_penalty":1,)"
            R"("logit_bias":{"5":-100},"reasoning_effort":"low","response_format":)"
            R"({"type":"json_schema","json_schema":{"name":"a","schema":{"type":"integer"}}})"));
  post(kChat, body(R"("response_format":{"type":"json_object"})"));

  const Request& request = fake().requests.at(0);
  EXPECT_EQ(request.sampling.temperature, 0.0F);
  EXPECT_EQ(request.sampling.seed, 7U);
  EXPECT_EQ(request.sampling.stop, std::vector<std::string>{"\n"});
  EXPECT_EQ(request.sampling.top_k, 3);
  EXPECT_EQ(request.sampling.presence_penalty, 1.0F);
  EXPECT_EQ(request.sampling.logit_bias.at(0).first, 5);
  const auto& query = std::get<QueryRequest>(request.skill);
  EXPECT_EQ(query.json_schema, R"({"type":"integer"})");
  EXPECT_EQ(query.reasoning, true);
  EXPECT_EQ(std::get<QueryRequest>(fake().requests.at(1).skill).json_schema,
            R"({"type":"object"})");
}

TEST_F(ServiceTest, Chat_ReportsLogprobsWithBytes) {
  fake().response = Response{
      .text = "A", .logprobs = {{.id = 65, .logprob = -0.5F, .top = {{65, -0.5F}, {0xc3, -2}}}}};

  const auto answer = post(kChat, body(R"("logprobs":true,"top_logprobs":2)"));

  const auto content = answer->json().at("choices").at(0).at("logprobs").at("content");
  EXPECT_EQ(content.at(0).at("token"), "A");
  EXPECT_EQ(content.at(0).at("bytes").at(0), 65);
  // Half a character has its byte, and no text.
  EXPECT_EQ(content.at(0).at("top_logprobs").at(1).at("bytes").at(0), 0xc3);
  EXPECT_EQ(content.at(0).at("top_logprobs").at(1).at("token"), "\xef\xbf\xbd");
  EXPECT_EQ(fake().requests.at(0).sampling.top_logprobs, 2);
}

TEST_F(ServiceTest, Chat_ChoicesDifferInTheirSeeds) {
  fake().response = Response{.text = "x", .usage = {.prompt_tokens = 10, .completion_tokens = 2}};

  const auto answer = post(kChat, body(R"("n":3,"seed":40)"));

  ASSERT_EQ(answer->json().at("choices").as_array().size(), 3U);
  EXPECT_EQ(answer->json().at("choices").at(2).at("index"), 2);
  EXPECT_EQ(answer->json().at("usage").at("prompt_tokens"), 10);
  EXPECT_EQ(answer->json().at("usage").at("completion_tokens"), 6);
  ASSERT_EQ(fake().requests.size(), 3U);
  EXPECT_EQ(fake().requests[2].sampling.seed, 42U);
}

TEST_F(ServiceTest, Chat_StopsAllChoicesWhenOneFindsNoPlace) {
  int num_submitted = 0;
  fake().on_submit = [&num_submitted](const Request&, const Callbacks&) -> Result<std::uint64_t> {
    if (++num_submitted == 3) return Error{ErrorCode::kOverloaded, "full"};
    return static_cast<std::uint64_t>(num_submitted);
  };

  EXPECT_EQ(post(kChat, body(R"("n":4)"))->whole->status, 429);
  EXPECT_EQ(fake().cancelled, (std::vector<std::uint64_t>{1, 2}));
}

TEST_F(ServiceTest, ChatStream_HasRoleTextReasonUsageAndDone) {
  fake().pieces = {"C", "at"};
  fake().response = Response{.text = "Cat", .usage = {.prompt_tokens = 5, .completion_tokens = 3}};

  const auto answer = post(kChat, body(R"("stream":true,"stream_options":{"include_usage":true})"));

  const auto events = answer->stream();
  ASSERT_EQ(events.size(), 6U);
  EXPECT_EQ(events[0].at("choices").at(0).at("delta").at("role"), "assistant");
  EXPECT_EQ(events[1].at("choices").at(0).at("delta").at("content"), "C");
  EXPECT_EQ(events[3].at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_TRUE(events[4].at("choices").as_array().empty());
  EXPECT_EQ(events[4].at("usage").at("total_tokens"), 8);
  EXPECT_EQ(events[5], "[DONE]");
  EXPECT_TRUE(answer->has_ended);
}

TEST_F(ServiceTest, ChatStream_FailsWithItsStatusBeforeTheFirstWord) {
  fake().response = Error{ErrorCode::kInvalidArgument, "not a picture"};
  const auto answer = post(kChat, body(R"("stream":true)"));
  ASSERT_TRUE(answer->whole);
  EXPECT_EQ(answer->whole->status, 400);
  EXPECT_FALSE(answer->head);
}

TEST_F(ServiceTest, Completion_AnswersItsPrompt) {
  fake().response = Response{.text = "Blue."};
  const auto answer = post("/v1/completions", R"({"model":"moondream2","prompt":"The sky is"})");
  EXPECT_EQ(answer->json().at("object"), "text_completion");
  EXPECT_EQ(answer->json().at("choices").at(0).at("text"), "Blue.");
  EXPECT_EQ(post("/v1/completions", R"({"prompt":["a","b"]})")->whole->status, 400);
}

}  // namespace
}  // namespace fovea::server
