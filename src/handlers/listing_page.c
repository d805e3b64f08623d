/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of a folder. It needs nothing from elsewhere, runs under a strict policy (style and script
 * carry the answer's nonce) and is whole without its script, which only filters as one types and
 * turns times into "3 days ago". Names are hostile: each text passes put_text, each address is
 * percent-escaped before that, and <bdi> keeps a name's writing direction to itself.
 */
#include <time.h>

#include "base/text.h"
#include "handlers/listing.h"
#include "http/uri.h"

static const char style[] =
    ":root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#667085;"
    "--line:#e4e7ec;--hover:#f2f6ff;--accent:#2459d6;--folder:#e0a12b;--file:#8a94a6;"
    "--image:#1f9d6b;--media:#b4469a;--pack:#a3622c;--code:#2459d6;--shade:0 1px 2px #1018280d,"
    "0 4px 16px #1018280a}"
    "@media(prefers-color-scheme:dark){:root{--bg:#0f1319;--card:#171c24;--ink:#e6e9ef;"
    "--soft:#98a2b3;--line:#262d38;--hover:#1d2430;--accent:#8ab0ff;--folder:#f0bd5e;"
    "--file:#7c879a;--image:#4fce9a;--media:#df86c9;--pack:#d79a63;--code:#8ab0ff;--shade:none}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--bg);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif}"
    "a{color:inherit;text-decoration:none}"
    "a:focus-visible,input:focus-visible{outline:2px solid var(--accent);outline-offset:1px;"
    "border-radius:6px}"
    "main,header,footer{max-width:1040px;margin:0 auto;padding:0 20px}"
    "header{padding-top:32px}"
    "h1{font-size:22px;font-weight:600;letter-spacing:-.01em;margin:0 0 4px;line-height:1.35;"
    "overflow-wrap:anywhere}"
    "h1 a{color:var(--accent)}h1 a:hover{text-decoration:underline}"
    "h1 i{color:var(--soft);font-style:normal;font-weight:400;padding:0 .3em}"
    ".sum{color:var(--soft);margin:0}"
    ".bar{display:flex;flex-wrap:wrap;gap:10px;align-items:center;margin:18px 0 12px}"
    ".bar form{flex:1 1 220px;display:flex}"
    "input[type=search]{width:100%;max-width:340px;font:inherit;color:inherit;"
    "background:var(--card);border:1px solid var(--line);border-radius:8px;padding:7px 12px}"
    ".views{display:flex;border:1px solid var(--line);border-radius:8px;overflow:hidden;"
    "background:var(--card)}"
    ".views a{display:flex;padding:8px 12px;color:var(--soft)}"
    ".views a:hover{background:var(--hover)}.views a[aria-current]{color:var(--accent);"
    "background:var(--hover)}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:12px;"
    "box-shadow:var(--shade);overflow:hidden}"
    "table{width:100%;border-collapse:collapse;table-layout:fixed}"
    "th{font-size:12.5px;font-weight:600;color:var(--soft);text-align:left;padding:0;"
    "border-bottom:1px solid var(--line)}"
    "th a{display:block;padding:10px 16px}th a:hover{color:var(--ink)}"
    "th[aria-sort] a{color:var(--ink)}"
    "td{padding:0;border-bottom:1px solid var(--line)}"
    "tr:last-child td{border-bottom:0}tbody tr:hover{background:var(--hover)}"
    ".size{width:120px;text-align:right;color:var(--soft);font-variant-numeric:tabular-nums;"
    "padding-right:16px;white-space:nowrap}"
    "th.size{padding-right:0}"
    ".time{width:190px;color:var(--soft);font-variant-numeric:tabular-nums;padding-left:16px;"
    "white-space:nowrap}th.time{padding-left:0}"
    ".name a{display:flex;align-items:center;gap:12px;padding:9px 16px;min-width:0}"
    ".name bdi{overflow-wrap:anywhere;min-width:0}"
    ".to{color:var(--soft);font-size:13px}"
    "tbody tr:hover .name bdi,.grid a:hover bdi{color:var(--accent)}"
    "svg{width:20px;height:20px;flex:none;fill:none;stroke:currentColor;stroke-width:1.6;"
    "stroke-linecap:round;stroke-linejoin:round}"
    ".folder{color:var(--folder);fill:color-mix(in srgb,currentColor 22%,transparent)}"
    ".file,.text{color:var(--file)}.image{color:var(--image)}.media{color:var(--media)}"
    ".pack{color:var(--pack)}.code{color:var(--code)}"
    ".grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px;"
    "list-style:none;margin:0;padding:0}"
    ".grid a{display:flex;flex-direction:column;align-items:center;gap:10px;padding:18px 12px 14px;"
    "text-align:center;height:100%}.grid li:hover{background:var(--hover)}"
    ".grid svg{width:44px;height:44px;stroke-width:1.2;margin:14px 0}"
    ".grid img{width:100%;height:72px;object-fit:contain;border-radius:6px}"
    ".grid bdi{font-size:14px;line-height:1.35;overflow-wrap:anywhere;display:-webkit-box;"
    "-webkit-line-clamp:3;-webkit-box-orient:vertical;overflow:hidden}"
    ".grid small{color:var(--soft)}"
    ".none{padding:44px 20px;text-align:center;color:var(--soft);margin:0}"
    ".pages{display:flex;justify-content:space-between;padding:14px 4px;color:var(--accent)}"
    ".note{color:var(--soft);padding:12px 4px;margin:0}"
    "footer{color:var(--soft);font-size:13px;padding-top:20px;padding-bottom:32px}"
    "[hidden]{display:none!important}"
    "@media(max-width:640px){.time{display:none}.size{width:92px}header{padding-top:20px}"
    "main,header,footer{padding-left:12px;padding-right:12px}.grid{grid-template-columns:"
    "repeat(auto-fill,minmax(118px,1fr))}}";

static const char icons[] =
    "<svg hidden><symbol id=\"up\" viewBox=\"0 0 24 24\"><path d=\"M9 14 4 9l5-5M4 9h10a6 6 0 0 1 6 6"
    "v5\"/></symbol><symbol id=\"folder\" viewBox=\"0 0 24 24\"><path d=\"M3 7a2 2 0 0 1 2-2h4l2.2 "
    "2.5H19a2 2 0 0 1 2 2V17a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z\"/></symbol>"
    "<symbol id=\"file\" viewBox=\"0 0 24 24\"><path d=\"M14 3H7a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h10a2 "
    "2 0 0 0 2-2V8zM14 3v5h5\"/></symbol>"
    "<symbol id=\"text\" viewBox=\"0 0 24 24\"><path d=\"M14 3H7a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h10a2 "
    "2 0 0 0 2-2V8zM14 3v5h5M9 12.5h6M9 16.5h6\"/></symbol>"
    "<symbol id=\"image\" viewBox=\"0 0 24 24\"><path d=\"M5 4h14a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2H5a2 "
    "2 0 0 1-2-2V6a2 2 0 0 1 2-2zM3.5 18.5 9 12.500l4 4.500 3-3 5 5\"/><circle cx=\"15.500\" "
    "cy=\"9\" r=\"1.600\"/></symbol>"
    "<symbol id=\"media\" viewBox=\"0 0 24 24\"><path d=\"M5 4h14a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2H5a2 "
    "2 0 0 1-2-2V6a2 2 0 0 1 2-2zM10 8.500l5.500 3.500L10 15.500z\"/></symbol>"
    "<symbol id=\"pack\" viewBox=\"0 0 24 24\"><path d=\"M4 8h16v10a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2zM5 "
    "4h14l1 4H4zM10 12h4\"/></symbol>"
    "<symbol id=\"code\" viewBox=\"0 0 24 24\"><path d=\"M14 3H7a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h10a2 "
    "2 0 0 0 2-2V8zM14 3v5h5M10.500 12l-2 2.500 2 2.500M13.500 12l2 2.500-2 2.500\"/></symbol>"
    "<symbol id=\"list\" viewBox=\"0 0 24 24\"><path d=\"M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 "
    "18h.01\"/></symbol><symbol id=\"grid\" viewBox=\"0 0 24 24\"><path d=\"M4 4h6v6H4zM14 4h6v6h-6z"
    "M4 14h6v6H4zM14 14h6v6h-6z\"/></symbol></svg>";

static const char script[] =
    "(()=>{const q=document.querySelector('input[type=search]'),"
    "rows=[...document.querySelectorAll('[data-item]')],none=document.getElementById('none');"
    "q.addEventListener('input',()=>{const t=q.value.toLowerCase();let n=0;"
    "for(const r of rows){const on=r.querySelector('bdi').textContent.toLowerCase().includes(t);"
    "r.hidden=!on;n+=on}none.hidden=n>0});"
    "const f=new Intl.RelativeTimeFormat(undefined,{numeric:'auto'}),"
    "u=[['year',31536e3],['month',2628e3],['week',604800],['day',86400],['hour',3600],"
    "['minute',60],['second',1]];"
    "for(const t of document.querySelectorAll('time')){const d=new Date(t.dateTime),"
    "s=(d-Date.now())/1e3;for(const[n,l]of u)if(Math.abs(s)>=l||l==1){"
    "t.textContent=f.format(Math.trunc(s/l),n);break}t.title=d.toLocaleString()}})()";

static void put(struct listing *l, const char *text)
{
    (void)!buffer_append(&l->body, slice_from(text));
}

/* Text and attribute values: nothing in it can end what it stands in. */
static void put_text(struct listing *l, struct slice s)
{
    while (s.len > 0) {
        unsigned char c = (unsigned char)s.ptr[0];
        size_t n = c < 0x80 ? 1 : utf8_decode(s, NULL);
        if (n == 0 || c < ' ' || c == 0x7f)
            put(l, "\xef\xbf\xbd"); /* U+FFFD */
        else if (c == '&')
            put(l, "&amp;");
        else if (c == '<')
            put(l, "&lt;");
        else if (c == '>')
            put(l, "&gt;");
        else if (c == '"')
            put(l, "&#34;");
        else if (c == '\'')
            put(l, "&#39;");
        else
            (void)!buffer_append(&l->body, slice_take(s, n));
        s = slice_skip(s, n > 0 ? n : 1);
    }
}

static void put_size(struct listing *l, uint64_t size)
{
    (void)!size_put(&l->body, size);
}

static void put_icon(struct listing *l, const char *kind)
{
    put(l, "<svg class=\"");
    put(l, kind);
    put(l, "\" aria-hidden=\"true\"><use href=\"#");
    put(l, kind);
    put(l, "\"/></svg>");
}

/* --- what kind of file a name promises --- */

static const struct {
    const char *extension, *kind;
} kinds[] = {
    {".png", "image"}, {".jpg", "image"}, {".jpeg", "image"}, {".gif", "image"}, {".webp", "image"},
    {".avif", "image"}, {".svg", "image"}, {".ico", "image"}, {".bmp", "image"}, {".heic", "image"},
    {".mp4", "media"}, {".mkv", "media"}, {".webm", "media"}, {".mov", "media"}, {".avi", "media"},
    {".mp3", "media"}, {".flac", "media"}, {".ogg", "media"}, {".opus", "media"}, {".wav", "media"},
    {".m4a", "media"}, {".zip", "pack"}, {".gz", "pack"}, {".tgz", "pack"}, {".xz", "pack"},
    {".bz2", "pack"}, {".zst", "pack"}, {".7z", "pack"}, {".rar", "pack"}, {".tar", "pack"},
    {".deb", "pack"}, {".rpm", "pack"}, {".iso", "pack"}, {".jar", "pack"}, {".txt", "text"},
    {".md", "text"}, {".pdf", "text"}, {".doc", "text"}, {".docx", "text"}, {".odt", "text"},
    {".rtf", "text"}, {".csv", "text"}, {".log", "text"}, {".epub", "text"}, {".html", "code"},
    {".htm", "code"}, {".css", "code"}, {".js", "code"}, {".mjs", "code"}, {".ts", "code"},
    {".json", "code"}, {".xml", "code"}, {".yaml", "code"}, {".yml", "code"}, {".toml", "code"},
    {".c", "code"}, {".h", "code"}, {".go", "code"}, {".rs", "code"}, {".py", "code"},
    {".php", "code"}, {".sh", "code"}, {".java", "code"}, {".rb", "code"}, {".sql", "code"},
};

static const char *kind_of(const struct listing_item *item)
{
    size_t dot = slice_find_last(item->name, '.');
    if (item->is_dir)
        return "folder";
    for (size_t i = 0; dot != SIZE_MAX && i < sizeof kinds / sizeof kinds[0]; i++) {
        if (slice_eq_nocase(slice_skip(item->name, dot), slice_from(kinds[i].extension)))
            return kinds[i].kind;
    }
    return "file";
}

/* Small pictures that every browser shows: in the grid they stand for themselves. */
static bool shows_itself(const struct listing_item *item, const char *kind)
{
    return strcmp(kind, "image") == 0 && item->size <= 4 << 20 &&
           !slice_ends(item->name, SLICE(".heic"));
}

/* --- addresses of this page in another order, layout, window --- */

static const char *const sort_names[] = {"name", "namedirfirst", "size", "time"};

static void put_link(struct listing *l, enum listing_sort sort, bool descending, bool grid,
                     uint64_t offset)
{
    put(l, "?sort=");
    put(l, sort_names[sort]);
    put(l, descending ? "&amp;order=desc" : "&amp;order=asc");
    put(l, grid ? "&amp;layout=grid" : "&amp;layout=list");
    if (l->filter.len > 0) {
        put(l, "&amp;filter=");
        put_text(l, query_escape(l->filter, &l->arena));
    }
    if (l->limit > 0)
        (void)!buffer_append_f(&l->body, "&amp;limit=%llu", (unsigned long long)l->limit);
    if (offset > 0)
        (void)!buffer_append_f(&l->body, "&amp;offset=%llu", (unsigned long long)offset);
}

static void put_href(struct listing *l, const struct listing_item *item)
{
    struct slice path = arena_join(&l->arena, (struct slice[]){SLICE("./"), item->name}, 2);
    put_text(l, uri_escape_path(path, &l->arena));
}

/* --- parts of the page --- */

static void put_start(struct listing *l, struct slice name)
{
    put(l, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    put_text(l, name);
    put(l, "</title><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
           "<meta name=\"color-scheme\" content=\"light dark\"><style nonce=\"");
    put(l, l->nonce);
    put(l, "\">");
    put(l, style);
    put(l, "</style></head>\n<body>");
    put(l, icons);
}

static void put_count(struct listing *l, size_t n, const char *what)
{
    (void)!buffer_append_f(&l->body, "%zu %s%s", n, what, n == 1 ? "" : "s");
}

static void put_header(struct listing *l, const struct crumb *crumbs, size_t count)
{
    put(l, "\n<header><h1>");
    for (size_t i = 0; i < count; i++) {
        bool last = i + 1 == count;
        if (i > 1)
            put(l, "<i>/</i>");
        put(l, last ? "<span>" : "<a href=\"");
        if (!last) {
            put_text(l, crumbs[i].link);
            put(l, "\">");
        }
        put(l, "<bdi>");
        put_text(l, crumbs[i].text);
        put(l, last ? "</bdi></span>" : "</bdi></a> ");
    }
    put(l, "</h1>\n<p class=\"sum\">");
    put_count(l, l->dirs, "folder");
    put(l, " · ");
    put_count(l, l->files, "file");
    put(l, " · ");
    put_size(l, l->bytes);
    put(l, "</p></header>\n");
}

static void put_view(struct listing *l, const char *kind, const char *label, bool grid)
{
    put(l, "<a href=\"");
    put_link(l, l->sort, l->descending, grid, l->offset);
    put(l, l->grid == grid ? "\" aria-current=\"true\" title=\"" : "\" title=\"");
    put(l, label);
    put(l, "\">");
    put_icon(l, kind);
    put(l, "</a>");
}

static void put_bar(struct listing *l)
{
    put(l, "<div class=\"bar\"><form method=\"get\"><input type=\"hidden\" name=\"layout\" value=\"");
    put(l, l->grid ? "grid" : "list");
    put(l, "\"><input type=\"search\" name=\"filter\" placeholder=\"Filter by name\" "
           "aria-label=\"Filter by name\" autocomplete=\"off\" value=\"");
    put_text(l, l->filter);
    put(l, "\"></form><nav class=\"views\" aria-label=\"Layout\">");
    put_view(l, "list", "List", false);
    put_view(l, "grid", "Grid", true);
    put(l, "</nav></div>\n");
}

static void put_column(struct listing *l, const char *label, const char *class_name,
                       enum listing_sort sort)
{
    bool current = l->sort == sort || (sort == SORT_NAME_DIR_FIRST && l->sort == SORT_NAME);
    put(l, "<th scope=\"col\" class=\"");
    put(l, class_name);
    put(l, !current ? "\">" : l->descending ? "\" aria-sort=\"descending\">"
                                            : "\" aria-sort=\"ascending\">");
    put(l, "<a href=\"");
    put_link(l, sort, current && !l->descending, l->grid, 0);
    put(l, "\">");
    put(l, label);
    put(l, !current ? "</a></th>" : l->descending ? " ↓</a></th>" : " ↑</a></th>");
}

static void put_time(struct listing *l, int64_t seconds)
{
    char text[96];
    struct tm t;
    time_t at = (time_t)seconds;
    if (gmtime_r(&at, &t) != NULL && strftime(text, sizeof text, "<time datetime=\"%Y-%m-%dT%H:%M:"
                                              "%SZ\">%Y-%m-%d %H:%M</time>", &t) > 0)
        put(l, text);
}

static void put_row(struct listing *l, const struct listing_item *item)
{
    put(l, "<tr data-item><td class=\"name\"><a href=\"");
    put_href(l, item);
    put(l, "\">");
    put_icon(l, kind_of(item));
    put(l, "<bdi>");
    put_text(l, item->name);
    put(l, "</bdi>");
    if (item->link.len > 0) {
        put(l, "<span class=\"to\">→ <span dir=\"ltr\">");
        put_text(l, item->link);
        put(l, "</span></span>");
    } else if (item->is_symlink) {
        put(l, "<span class=\"to\" title=\"symbolic link\">↗</span>");
    }
    put(l, "</a></td><td class=\"size\">");
    if (item->is_dir)
        put(l, "—");
    else
        put_size(l, item->size);
    put(l, "</td><td class=\"time\">");
    put_time(l, item->mtime_s);
    put(l, "</td></tr>\n");
}

static void put_list(struct listing *l, bool can_go_up)
{
    put(l, "<div class=\"card\"><table><thead><tr>");
    put_column(l, "Name", "name", SORT_NAME_DIR_FIRST);
    put_column(l, "Size", "size", SORT_SIZE);
    put_column(l, "Modified", "time", SORT_TIME);
    put(l, "</tr></thead><tbody>\n");
    if (can_go_up) {
        put(l, "<tr><td class=\"name\"><a href=\"../\">");
        put_icon(l, "up");
        put(l, "<span>Up</span></a></td><td class=\"size\"></td><td class=\"time\"></td></tr>\n");
    }
    for (size_t i = 0; i < l->count; i++)
        put_row(l, &l->items[i]);
    put(l, "</tbody></table></div>\n");
}

static void put_tile(struct listing *l, const struct listing_item *item)
{
    const char *kind = kind_of(item);
    put(l, "<li class=\"card\" data-item><a href=\"");
    put_href(l, item);
    put(l, "\">");
    if (shows_itself(item, kind)) {
        put(l, "<img loading=\"lazy\" alt=\"\" src=\"");
        put_href(l, item);
        put(l, "\">");
    } else {
        put_icon(l, kind);
    }
    put(l, "<bdi>");
    put_text(l, item->name);
    put(l, "</bdi><small>");
    if (!item->is_dir)
        put_size(l, item->size);
    put(l, "</small></a></li>\n");
}

static void put_grid(struct listing *l, bool can_go_up)
{
    put(l, "<ul class=\"grid\">\n");
    if (can_go_up) {
        put(l, "<li class=\"card\"><a href=\"../\">");
        put_icon(l, "up");
        put(l, "<span>Up</span></a></li>\n");
    }
    for (size_t i = 0; i < l->count; i++)
        put_tile(l, &l->items[i]);
    put(l, "</ul>\n");
}

static void put_pages(struct listing *l)
{
    uint64_t behind = l->offset + l->count;
    if (l->limit == 0 || (l->offset == 0 && behind >= l->total))
        return;
    put(l, "<nav class=\"pages\" aria-label=\"Pages\"><span>");
    if (l->offset > 0) {
        put(l, "<a rel=\"prev\" href=\"");
        put_link(l, l->sort, l->descending, l->grid, l->offset > l->limit ? l->offset - l->limit : 0);
        put(l, "\">← Previous</a>");
    }
    put(l, "</span><span>");
    if (behind < l->total) {
        put(l, "<a rel=\"next\" href=\"");
        put_link(l, l->sort, l->descending, l->grid, behind);
        put(l, "\">Next →</a>");
    }
    put(l, "</span></nav>\n");
}

void listing_put_page(struct listing *l)
{
    size_t count;
    struct crumb *crumbs = listing_crumbs(l->url_path, &l->arena, &count);
    bool can_go_up = l->url_path.len > 1;
    put_start(l, count > 0 ? crumbs[count - 1].text : SLICE("/"));
    put_header(l, crumbs, count);
    put(l, "<main>");
    put_bar(l);
    if (l->grid)
        put_grid(l, can_go_up);
    else
        put_list(l, can_go_up);
    put(l, "<p class=\"none\" id=\"none\"");
    put(l, l->count > 0 ? " hidden>" : ">");
    put(l, l->dirs + l->files > 0 ? "No name contains this." : "This folder is empty.");
    put(l, "</p>\n");
    put_pages(l);
    if (l->cut)
        (void)!buffer_append_f(&l->body, "<p class=\"note\">Only %zu names of this folder were "
                               "read.</p>\n", l->file_limit);
    put(l, "</main>\n<footer>Served by portico</footer>\n<script nonce=\"");
    put(l, l->nonce);
    put(l, "\">");
    put(l, script);
    put(l, "</script></body></html>\n");
}
