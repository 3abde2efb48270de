"""What Wikipedias call things in their languages: codes of languages, pictures' old names, redirects, sections of sources.

A dump names its own namespaces; what stands here it does not say. Lower case throughout.
"""

_LANGUAGES = """aa ab ace ady af als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar bat-smg bcl bdr be be-tarask
    be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca cbk-zam cdo ce ceb ch cho chr chy ckb co cr crh cs csb cu cv cy cz da dag de
    dga din diq dk dsb dtp dty dv dz ee el eml en eo es et eu ext fa fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn
    gom gor got gpe gsw gu guc gur guw gv ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja jam
    jbo jp jv ka kaa kab kbd kbp kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld lmo
    ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min minnan mk ml mn mni mnw mo mr mrj ms mt mus mwl my myv mzn na nah nan nap nb nds
    nds-nl ne new ng nia nl nn no nov nqo nr nrm nso nv ny oc olo om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu
    rm rmy rn ro roa-rup roa-tara rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn si simple sk skr sl sm smn sn so sq sr srn
    ss st stq su sv sw szl szy ta tay tcy tdd te tet tg th ti tig tk tl tly tn to tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep
    vi vls vo vro wa war wo wuu xal xh xmf yi yo yue za zea zgh zh zh-cfr zh-classical zh-cn zh-min-nan zh-tw zh-yue zu"""
LANGUAGES = frozenset(_LANGUAGES.split())  # prefixes of links to the same article in another language

HIDDEN = frozenset({"file", "image", "media", "category"})  # valid in every wiki; links into these namespaces show no text
OLD_NAMES = {  # by language: names of the file namespace that are still valid, beside the one that a dump gives
    "ar": "صورة ملف", "bg": "картинка", "ca": "imatge", "cs": "obrázek", "da": "billede", "de": "bild", "el": "εικόνα", "eo": "dosiero",
    "es": "imagen", "et": "pilt", "eu": "irudi", "fa": "تصویر پرونده", "fi": "kuva", "he": "תמונה", "hr": "slika", "hu": "kép",
    "id": "gambar berkas", "it": "immagine", "ja": "画像", "ko": "그림", "lt": "vaizdas", "lv": "attēls", "ms": "imej", "nl": "afbeelding",
    "no": "bilde", "pl": "grafika", "pt": "imagem", "ro": "imagine", "ru": "изображение", "sk": "obrázok", "sl": "slika", "sr": "слика",
    "sv": "bild", "th": "ภาพ", "tr": "resim", "uk": "зображення", "vi": "hình", "zh": "图像 圖像 文件 檔案 档案",
}  # fmt: skip
MORE_NAMES = {  # that version 2 of the cleaning did not know; "KATEGORİ" in lower case has a dot that combines
    "nb": "bilde", "ja": "カテゴリ", "tr": "kategori\u0307 resi\u0307m", "az": "kateqori\u0307ya", "pt-br": OLD_NAMES["pt"],
    "zh-hans": OLD_NAMES["zh"], "zh-hant": OLD_NAMES["zh"], "sr-ec": OLD_NAMES["sr"], "sr-el": OLD_NAMES["sr"],
}  # fmt: skip

_REDIRECTS = """redirect weiterleitung redirection redirección redireccion rinvia redirecionamento doorverwijzing patrz przekieruj
    перенаправление перенапр перенаправлення преусмери пренасочване виж omdirigering omdirigera uudelleenohjaus ohjaus přesměruj presmeruj
    přesměrování átirányítás redirecteaza redirectează yönlendirme ανακατευθυνση ανακατεύθυνση alih lencong đổi preusmeri preusmjeri birzuzendu
    redirecció alidirektu suuna suunas tam aanstuur adkas ailgyfeirio omdiriger preusmeritev ridrejto пренасочување გადამისამართება
    peradresavimas pāradresācija tilvísun athsheoladh ail-cyfeirio تحويل تغییر_مسیر تغییرمسیر הפניה 転送 リダイレクト
    넘겨주기 重定向 重新導向 เปลี่ยนทาง अनुप्रेषित पुनर्निर्देशित পুনর্নির্দেশ რედირექტი վերահղում айдау перасылка"""
REDIRECTS = tuple(_REDIRECTS.split())

AND = r"and|&|/|,|und|et|y|e|i|en|och|og|ja|ve|és|și|и|та|і|a|va|dan|và|و|ו|と|和|及|與|与|・"
SOURCES = """notes | references | sources | citations | footnotes | further reading | external links | web links | see also | bibliography
    | selected bibliography | annotated bibliography | endnotes | works cited
    | einzelnachweise | einzelnachweis | weblinks | weblink | literatur | siehe auch | quellen | anmerkungen | fußnoten | belege
    | références | notes et références | liens externes | lien externe | voir aussi | articles connexes | bibliographie | annexes
    | referencias | notas | enlaces externos | enlace externo | véase también | bibliografía | fuentes | notas al pie
    | referências | ligações externas | links externos | ver também | bibliografia | fontes
    | note | collegamenti esterni | voci correlate | altri progetti | riferimenti | fonti
    | referenties | externe links | externe link | zie ook | bronnen | noten | literatuur | voetnoten | bronnen, noten en/of referenties
    | przypisy | linki zewnętrzne | zobacz też | uwagi | literatura | źródła
    | примечания | ссылки | литература | см. также | источники | сноски | примітки | посилання | література | див. також | джерела | виноски
    | бележки | източници | външни препратки | вижте също | препратки | референце | извори | спољашње везе | види још | напомене
    | 脚注 | 注釈 | 出典 | 参考文献 | 関連項目 | 外部リンク | 関連文献 | 注釈・出典
    | 参考资料 | 參考資料 | 参考文献 | 參考文獻 | 外部链接 | 外部連結 | 外部鏈接 | 参见 | 參見
    | 注释 | 註釋 | 注釋 | 注解 | 註解
    | 相关条目 | 相關條目 | 延伸阅读 | 延伸閱讀 | 脚注 | 腳註 | 参考 | 參考 | 來源 | 来源
    | 각주 | 같이 보기 | 외부 링크 | 참고 문헌 | 참고문헌 | 주석 | 출처
    | referenser | källor | externa länkar | se även | noter | fotnoter | litteratur
    | referanser | kilder | eksterne lenker | eksterne henvisninger | se også | kildehenvisninger | eksterne kilder | fodnoter | fotnoter | referencer
    | lähteet | viitteet | aiheesta muualla | katso myös | kirjallisuutta | viited | välislingid | vaata ka | allikad
    | kaynakça | dış bağlantılar | ayrıca bakınız | notlar | kaynaklar | dipnotlar
    | jegyzetek | források | további információk | külső hivatkozások | lásd még | irodalom
    | reference | externí odkazy | související články | poznámky | zdroje | referencie | externé odkazy | iné projekty | pozri aj
    | referințe | legături externe | vezi și | bibliografie | surse
    | παραπομπές | εξωτερικοί σύνδεσμοι | δείτε επίσης | πηγές | βιβλιογραφία | σημειώσεις
    | المراجع | مراجع | مصادر | المصادر | وصلات خارجية | روابط خارجية | انظر أيضا | انظر أيضًا | هوامش | الهوامش
    | منابع | پانویس | پیوند به بیرون | جستارهای وابسته | یادداشت‌ها | ארות שוליים | הערות שוליים | קישורים חיצוניים | לקריאה נוספת | ראו גם | מקורות
    | tham khảo | liên kết ngoài | xem thêm | chú thích | ghi chú | nguồn
    | referensi | pranala luar | lihat pula | lihat juga | catatan kaki | catatan | rujukan | pautan luar
    | อ้างอิง | แหล่งข้อมูลอื่น | ดูเพิ่ม | हवाला | सन्दर्भ | संदर्भ | बाहरी कड़ियाँ | इन्हें भी देखें | তথ্যসূত্র | বহিঃসংযোগ | আরও দেখুন
    | referències | enllaços externs | vegeu també | bibliografia | fonts | erreferentziak | kanpo estekak | ikus, gainera
    | viri | zunanje povezave | glej tudi | sklici | izvori | vanjske poveznice | povezano | napomene | spoljašnje veze | vidi još
    | eksteraj ligiloj | referencoj | vidu ankaŭ | fontoj
    | šaltiniai | nuorodos | išnašos | atsauces | ārējās saites | skatīt arī""".replace("\n", " ")
