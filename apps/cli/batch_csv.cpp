#include "batch_csv.h"

#include <cstddef>
#include <fmt/format.h>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "batch_question.h"

namespace fovea::cli {
namespace {

using Row = std::vector<std::string>;

std::string field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + '"';
}

void add_row(const Row& row, std::string& csv) {
  for (std::size_t i = 0; i < row.size(); ++i) csv += (i == 0 ? "" : ",") + field(row[i]);
  csv += '\n';
}

// The table of one skill: its columns behind `path`, and an answer as rows of them.
struct Columns {
  std::vector<std::string> question;  // what the text is called; empty for a caption
  std::vector<std::string> findings;
};

Columns columns_of(const SkillRequest& question) {
  if (std::holds_alternative<CaptionRequest>(question)) return {{}, {"caption", "finish_reason"}};
  if (std::holds_alternative<QueryRequest>(question)) {
    return {{"question"}, {"answer", "reasoning", "finish_reason"}};
  }
  if (std::holds_alternative<DetectRequest>(question)) {
    return {{"object"}, {"x_min", "y_min", "x_max", "y_max", "confidence"}};
  }
  return {{"object"}, {"x", "y", "confidence"}};
}

std::string number(double value) { return fmt::format("{:.6f}", value); }

std::vector<Row> rows_of(const SkillRequest& question, const Response& response) {
  const std::string reason(finish_reason_name(response.finish_reason));
  if (std::holds_alternative<CaptionRequest>(question)) return {{response.text, reason}};
  if (std::holds_alternative<QueryRequest>(question)) {
    return {{response.text, response.reasoning ? response.reasoning->text : "", reason}};
  }
  std::vector<Row> rows;
  rows.reserve(response.boxes.size() + response.points.size());
  for (const Box& box : response.boxes) {
    rows.push_back({number(box.x_min), number(box.y_min), number(box.x_max), number(box.y_max),
                    number(box.confidence)});
  }
  for (const Point& point : response.points) {
    rows.push_back({number(point.x), number(point.y), number(point.confidence)});
  }
  return rows;
}

Row joined(Row row, const Row& more, std::string last) {
  row.insert(row.end(), more.begin(), more.end());
  row.push_back(std::move(last));
  return row;
}

}  // namespace

Result<std::string> csv_text(const BatchArgs& args, const BatchPictures& pictures,
                             const BatchJournal& journal) {
  const Columns columns = columns_of(args.questions.front());
  Row header{"path"};
  header.insert(header.end(), columns.question.begin(), columns.question.end());
  std::string csv;
  add_row(joined(header, columns.findings, "missing"), csv);

  const Row nothing(columns.findings.size());
  for (std::size_t i = 0; i < pictures.files.size(); ++i) {
    for (std::size_t q = 0; q < args.questions.size(); ++q) {
      Row begin{pictures.files[i].path};
      if (!columns.question.empty()) begin.push_back(text_of(args.questions[q]));
      if (!journal.has(i, q)) {
        add_row(joined(begin, nothing, "yes"), csv);
        continue;
      }
      const Result<wire::BatchRecord> record = journal.read(i, q);
      if (!record.ok()) return record.error();
      const std::vector<Row> rows = rows_of(args.questions[q], *record->answer);
      for (const Row& row : rows) add_row(joined(begin, row, ""), csv);
      if (rows.empty()) add_row(joined(begin, nothing, ""), csv);
    }
  }
  return csv;
}

}  // namespace fovea::cli
